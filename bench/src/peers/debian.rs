//! Debian packages, unpacked beside each other instead of installed: nothing outside of the tools changes, no service is started,
//! and no root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Missing,
    install::{finish, missing, once, unusable},
};

/// The newest versions that the package lists know of `packages`, and of what they depend on and this system lacks, unpacked
/// below `tools`. The first package's name is the directory's. Returns it: the root below which `usr/bin` is.
///
/// # Errors
/// There is no apt, or it does not find them.
pub(super) fn unpacked(tools: &Path, packages: &[&str]) -> Result<PathBuf, Missing> {
    // apt takes a relative path as one below its own cache.
    let root = tools.canonicalize().map_err(|error| unusable(tools, &error))?.join(packages[0]);
    once(&root, |unfinished| {
        // Lists that are old name versions that are gone; only root may renew them, so that is tried only then.
        fetch(unfinished, packages).or_else(|first| match finish(Command::new("apt-get").arg("update")) {
            Ok(_) => fetch(unfinished, packages),
            Err(_) => Err(first),
        })?;
        let archives = archives(unfinished);
        for entry in fs::read_dir(&archives).map_err(|error| unusable(&archives, &error))?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                finish(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(unfinished))?;
            }
        }
        fs::remove_dir_all(&archives).map_err(|error| unusable(&archives, &error))
    })?;
    Ok(root)
}

/// The directory in `parent` whose name begins with `prefix`, as those that carry a version do, and the rest of its name.
///
/// # Errors
/// There is none.
pub(super) fn versioned(parent: &Path, prefix: &str) -> Result<(PathBuf, String), Missing> {
    let entries = fs::read_dir(parent).map_err(|error| unusable(parent, &error))?;
    entries
        .flatten()
        .find_map(|entry| Some((entry.path(), entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned())))
        .ok_or_else(|| missing(&parent.display(), &format!("there is no {prefix}*")))
}

fn fetch(unfinished: &Path, packages: &[&str]) -> Result<(), Missing> {
    let archives = archives(unfinished);
    let partial = archives.join("partial");
    fs::create_dir_all(&partial).map_err(|error| unusable(&partial, &error))?;
    finish(
        Command::new("apt-get")
            .args(["install", "--download-only", "--yes", "--no-install-recommends"])
            // Also what the system has installed: it is unpacked here all the same.
            .arg("--reinstall")
            // Nothing is installed, so the system's locks, which only root may take, are not needed.
            .args(["-o", "Debug::NoLocking=1", "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args(packages),
    )?;
    Ok(())
}

fn archives(unfinished: &Path) -> PathBuf {
    unfinished.join("archives")
}
