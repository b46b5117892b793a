//! The commands that are measured: built in release, from this workspace, before anything is.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// Builds both services beside this program.
///
/// # Errors
/// This program is not a release build, or cargo fails.
pub fn build() -> anyhow::Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "this is not a release build; a result would mean nothing: cargo run --release -p oncelog-bench"
    );
    let target = directory()?.parent().context("target/release has a parent")?.to_owned();
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "-p", "broker-svc", "-p", "producer-svc", "--target-dir"])
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "the services cannot be built");
    Ok(())
}

/// The path of a command.
///
/// # Errors
/// It is not there.
pub(super) fn path(name: &str) -> anyhow::Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path)
}

/// Name and size in bytes of both, as they are shipped: without debug information, if there is a `strip` to take it out.
///
/// # Errors
/// One is not there.
pub fn sizes() -> anyhow::Result<BTreeMap<String, u64>> {
    ["broker-svc", "producer-svc"]
        .into_iter()
        .map(|name| {
            let path = path(name)?;
            let stripped = env::temp_dir().join(format!("{name}-stripped-{}", std::process::id()));
            let done = Command::new("strip").arg("-o").arg(&stripped).arg(&path).status().is_ok_and(|status| status.success());
            let (name, measured) = if done { (format!("{name} (stripped)"), &stripped) } else { (name.to_owned(), &path) };
            let bytes = fs::metadata(measured)?.len();
            let _ = fs::remove_file(&stripped);
            Ok((name, bytes))
        })
        .collect()
}

fn directory() -> anyhow::Result<PathBuf> {
    Ok(env::current_exe()?.parent().context("a program lies in a directory")?.to_owned())
}
