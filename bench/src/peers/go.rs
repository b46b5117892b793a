//! What is built with Go: the client that drives the peers, and the NATS server. One module pins the versions of both, and Go
//! checks them against its sums.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Missing,
    install::{finish, missing, unusable},
};

/// The directory with the built programs, and the versions that they were built from.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    directory: PathBuf,
    go: String,
}

impl Programs {
    /// Builds them in `tools`; Go knows by itself what is built already.
    ///
    /// # Errors
    /// There is no Go, or the modules cannot be had.
    pub(super) fn built(tools: &Path) -> Result<Self, Missing> {
        let directory = tools.join("go");
        fs::create_dir_all(&directory).map_err(|error| unusable(&directory, &error))?;
        let absolute = directory.canonicalize().map_err(|error| unusable(&directory, &error))?;
        // `-o DIRECTORY/` names each program after its package.
        finish(
            Command::new("go")
                .args(["build", "-trimpath", "-o"])
                .arg(absolute.join(""))
                .args([".", NATS_SERVER])
                .current_dir(SOURCE),
        )?;
        let go = finish(Command::new("go").args(["env", "GOVERSION"]))?.trim().to_owned();
        Ok(Self { directory: absolute, go })
    }

    /// The client of the peers.
    pub(super) fn client(&self) -> PathBuf {
        self.directory.join("client")
    }

    /// The server of NATS.
    pub(super) fn nats_server(&self) -> PathBuf {
        self.directory.join("nats-server")
    }

    /// The version of a `module` in the client, then that of Go.
    ///
    /// # Errors
    /// The client does not contain it.
    pub(super) fn client_versions(&self, module: &str) -> Result<BTreeMap<String, String>, Missing> {
        let listed = finish(Command::new("go").args(["version", "-m"]).arg(self.client()))?;
        let version = version_of(module, &listed)
            .ok_or_else(|| missing(&self.client().display(), &format!("there is no {module} in it")))?;
        Ok([(module.to_owned(), version.to_owned()), ("Go".to_owned(), self.go.clone())].into())
    }
}

/// In lines of `dep <module> <version> <sum>`.
fn version_of<'a>(module: &str, listed: &'a str) -> Option<&'a str> {
    listed.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "dep" && words.next()? == module).then(|| words.next())?
    })
}

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peers/client");
const NATS_SERVER: &str = "github.com/nats-io/nats-server/v2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_the_whole_name_of_its_module() {
        let listed = "client: go1.26\n\tpath\tx\n\tdep\tgithub.com/a/b.go\tv1.5.0\th1:x\n\tdep\tgithub.com/a/b\tv2.0.0\th1:y\n";
        assert_eq!(version_of("github.com/a/b", listed), Some("v2.0.0"));
        assert_eq!(version_of("github.com/a", listed), None);
    }
}
