//! A small disk of its own: a file system in a file, mounted, so that filling it harms nobody else. That needs root and Linux's
//! loop devices; where they are missing, it is said and the disk is not filled.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// A mounted file system; unmounted when dropped. The file that it is in, `volume.img`, stays for whoever wants to look.
#[derive(Debug)]
pub struct Volume {
    mounted: PathBuf,
}

impl Volume {
    /// Makes one of so many bytes in `directory`, and mounts it there.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn mount(directory: &Path, bytes: u64) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "only root can mount a small disk to fill");
        let (image, mounted) = (directory.join("volume.img"), directory.join("volume"));
        File::create_new(&image)?.set_len(bytes)?;
        fs::create_dir(&mounted)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }

    /// The directory that it is.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Takes all the space there is, but for crumbs.
    ///
    /// # Errors
    /// The file system says something else than that it is full.
    pub fn fill(&self) -> io::Result<()> {
        let file = File::create(self.mounted.join(FILLING))?;
        let stat = fstatvfs(&file)?;
        let mut taken = 0;
        let mut piece = stat.f_bavail.saturating_mul(stat.f_frsize);
        while piece >= CRUMB_BYTES {
            match fallocate(&file, FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.mounted.join(FILLING))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it; then the mount goes with the last of them.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mounted));
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

const FILLING: &str = "filling";
const CRUMB_BYTES: u64 = 4096;
