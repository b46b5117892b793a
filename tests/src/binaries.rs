//! Where the built commands are. They are built when the first test asks, in the profile of the tests themselves, so that no
//! test ever runs against what was built before the last edit.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use oncelog_chaos::program::{Program, Programs};

/// The path of a command: `broker-svc`, `producer-svc` or `oncelog`.
///
/// # Panics
/// If it cannot be built.
pub fn path(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(build).join(name);
    assert!(path.is_file(), "there is no {}", path.display());
    path
}

/// A command as what is started.
pub fn program(name: &str) -> Program {
    Program::new(path(name))
}

/// Both services.
pub fn programs() -> Programs {
    Programs { broker: program("broker-svc"), producer: program("producer-svc") }
}

/// A command, ready to be given arguments.
pub fn command(name: &str) -> tokio::process::Command {
    program(name).command()
}

/// Is there a grpcurl?
///
/// # Panics
/// If there is none where `CI=true`: a test that is left out there would never be missed.
pub fn has_grpcurl() -> bool {
    let found = Command::new("grpcurl").arg("-version").output().is_ok_and(|output| output.status.success());
    let required = env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !required, "CI=true, and there is no grpcurl in PATH");
    found
}

fn build() -> PathBuf {
    // target/<profile>/deps/<test>
    let test = env::current_exe().expect("a running test has a path");
    let directory = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps").to_owned();
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    // All members, as in the build of the tests: fewer would have other features, and everything would be built again.
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "the commands cannot be built");
    directory
}
