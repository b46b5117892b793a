//! A real file system, small enough to fill, on a loop device over memory. The memory can be less than what the file system
//! believes to have: once it is used up, the device fails, as a broken disk does, and a sync of a file says so.

use std::{
    ffi::OsStr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A file system of `bytes` over `memory` bytes; none, and that is said on stderr, where the machine does not let us mount
    /// one.
    ///
    /// # Panics
    /// With `CI=true`, where the machine does not let us.
    pub fn new(bytes: u64, memory: u64) -> Option<Self> {
        match Self::mounted(bytes, memory) {
            Ok(disk) => Some(disk),
            Err(error) => {
                let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!is_ci, "no file system can be mounted here: {error:#}");
                eprintln!("left out, because no file system can be mounted here: {error:#}");
                None
            }
        }
    }

    fn mounted(bytes: u64, memory: u64) -> anyhow::Result<Self> {
        let disk = Self { directory: tempfile::tempdir()? };
        std::fs::create_dir(disk.memory())?;
        std::fs::create_dir(disk.path())?;
        run("mount", ["-t", "tmpfs", "-o", &format!("size={memory}"), "tmpfs"], &[&disk.memory()])?;
        std::fs::File::create(disk.image())?.set_len(bytes)?;
        // Its own tables are written now, and not when the memory has run out.
        let options = ["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        run("mkfs.ext4", options, &[&disk.image()])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Gives the device as much memory as it wants, and mounts the file system anew, as after a repair.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn repair(&self, memory: u64) -> anyhow::Result<()> {
        run("umount", [], &[&self.path()])?;
        run("mount", ["-o", &format!("remount,size={memory}")], &[&self.memory()])?;
        self.mount()
    }

    /// The device is asked for a page at a time. A loop device that finds room for a part of a request says that it has done all
    /// of it: the file system would be told that a sync succeeded that did not. A page is there or it is not.
    fn mount(&self) -> anyhow::Result<()> {
        run("mount", ["-t", "ext4", "-o", "loop"], &[&self.image(), &self.path()])?;
        let device = std::fs::metadata(self.path())?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let largest = format!("/sys/dev/block/{major}:{minor}/queue/max_sectors_kb");
        std::fs::write(&largest, "4").with_context(|| format!("{largest} cannot be set"))
    }

    fn memory(&self) -> PathBuf {
        self.directory.path().join("memory")
    }

    fn image(&self) -> PathBuf {
        self.memory().join("image")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        for mounted in [self.path(), self.memory()] {
            // Whether it was mounted or not: what is left over is the machine's to clean up.
            let _ = run("umount", ["--lazy"], &[&mounted]);
        }
    }
}

fn run<const N: usize>(command: &str, options: [&str; N], paths: &[&Path]) -> anyhow::Result<()> {
    let args = options.into_iter().map(OsStr::new).chain(paths.iter().map(|path| path.as_os_str()));
    let output = Command::new(command).args(args).output().with_context(|| format!("{command} cannot be run"))?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
