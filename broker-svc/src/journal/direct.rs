//! Writing past the page cache. The copy of a large group into new pages of the cache takes several times as long as the disk
//! takes for the same bytes. A small one is copied in no time, and a follower wants it at once: it stays in the cache, where no
//! read of it goes to the disk.
//!
//! The kernel hands the bytes to the device from where they are, so it wants their address, their length and their place in the
//! file to be multiples of the device's block. Only the last two are the writer's to give; for the first they are gathered here,
//! in one buffer that is used again and again.
//!
//! A write past the cache is in its place before it returns, but no more durable than any other: the device may hold it in a
//! cache of its own, and the file system has still to note that these blocks are written. So the sync stays. Readers go on
//! reading through the cache: the kernel drops the range from it once the write is done, and waits for a read-ahead that was
//! under way.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::fd::AsRawFd,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::options::MAX_GROUP_BYTES;

/// A second descriptor of a file, for writes past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    buffer: Aligned,
    /// A write went through: this file's blocks are no larger than ours, and what fails from now on failed.
    proven: bool,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is written.
    Written,
    /// So many bytes are, and the rest does not begin at a block: it has to go through the cache.
    Unaligned(usize),
    /// The file system takes no such writes; nothing is written.
    Refused,
}

impl Direct {
    /// Opens the file once more; none if its file system takes no writes past the cache.
    pub(super) fn open(file: &File) -> Option<Self> {
        // By its number and not by its name, which changes when a spare becomes a segment.
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        // Whatever the reason is, the descriptor that is there will do.
        let opened = retry_on_intr(|| rustix::fs::open(&*again, flags, Mode::empty())).ok()?;
        Some(Self { file: opened.into(), buffer: Aligned::default(), proven: false })
    }

    /// Is this to be written past the cache? A place and a length in whole blocks, enough of them, and no more than a group has.
    pub(super) fn takes(slices: &[IoSlice<'_>], position: u64) -> bool {
        let len = len(slices);
        position.is_multiple_of(ALIGNMENT as u64) && len.is_multiple_of(ALIGNMENT) && (LEAST_BYTES..=MOST_BYTES).contains(&len)
    }

    /// Writes all slices, one behind the other, in one write.
    ///
    /// # Errors
    /// What the disk says. Nobody knows what of it was written.
    ///
    /// # Panics
    /// [`Self::takes`] was not asked.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], position: u64) -> io::Result<Outcome> {
        assert!(Self::takes(slices, position), "only whole blocks go past the cache");
        let bytes = self.buffer.gather(slices);
        let mut done = 0;
        while done < bytes.len() {
            if !done.is_multiple_of(ALIGNMENT) {
                return Ok(Outcome::Unaligned(done));
            }
            match retry_on_intr(|| rustix::io::pwrite(&self.file, &bytes[done..], position + done as u64)) {
                // Blocks that are larger than ours, or a file system that says so only now. It looked at the request alone.
                Err(Errno::INVAL) if !self.proven => return Ok(Outcome::Refused),
                Err(e) => return Err(e.into()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // Rare: the disk took a part. Go on where it stopped.
                Ok(written) => done += written,
            }
            self.proven = true;
        }
        Ok(Outcome::Written)
    }
}

/// A buffer that begins at a multiple of [`ALIGNMENT`]. As large as the largest write so far.
#[derive(Debug, Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    fn gather(&mut self, slices: &[IoSlice<'_>]) -> &[u8] {
        let len = len(slices);
        // One block more than is needed has an aligned start in it, wherever it lies.
        if self.0.len() < len + ALIGNMENT {
            // The old one goes before the new one comes. Doubled, so that groups that grow do not bring a new one each time.
            let doubled = (2 * self.0.len()).clamp(len, MOST_BYTES);
            self.0 = Vec::new();
            self.0 = vec![0; doubled + ALIGNMENT];
        }
        let address = self.0.as_ptr().addr();
        let start = address.next_multiple_of(ALIGNMENT) - address;
        let gathered = &mut self.0[start..start + len];
        let mut rest = &mut *gathered;
        for slice in slices {
            let (here, behind) = rest.split_at_mut(slice.len());
            here.copy_from_slice(slice);
            rest = behind;
        }
        gathered
    }
}

fn len(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

/// In bytes. No disk in use has larger blocks; one that has refuses.
const ALIGNMENT: usize = 4096;
/// From here on the copy takes longer than a follower's read from the disk. A group of one call of the largest usual size has as
/// much.
pub(super) const LEAST_BYTES: usize = 256 << 10;
/// The largest group and the block of zeros behind it.
const MOST_BYTES: usize = MAX_GROUP_BYTES as usize + ALIGNMENT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_the_largest_size_goes_past_the_cache_and_nothing_larger() {
        let zeros = vec![0; MOST_BYTES + ALIGNMENT];
        assert!(Direct::takes(&[IoSlice::new(&zeros[..MOST_BYTES])], 0));
        assert!(!Direct::takes(&[IoSlice::new(&zeros)], 0));
    }

    #[test]
    fn a_small_group_stays_in_the_cache() {
        let zeros = vec![0; LEAST_BYTES];
        assert!(Direct::takes(&[IoSlice::new(&zeros)], 0));
        assert!(!Direct::takes(&[IoSlice::new(&zeros[ALIGNMENT..])], 0));
    }

    #[test]
    fn slices_are_gathered_in_order_at_an_aligned_address_in_one_buffer() {
        let mut buffer = Aligned::default();
        let mut largest = 0;
        for blocks in [1, 3, 2, 500, 1, MOST_BYTES / ALIGNMENT] {
            let bytes: Vec<u8> = (0..blocks * ALIGNMENT).map(|i| i.to_le_bytes()[1] ^ i.to_le_bytes()[0]).collect();
            let (one, other) = bytes.split_at(bytes.len() / 2 + 1);
            let gathered = buffer.gather(&[IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(other)]);
            assert!(gathered.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(gathered == bytes, "{blocks} blocks");
            largest = largest.max(2 * bytes.len()).min(MOST_BYTES);
            assert!(buffer.0.len() <= largest + ALIGNMENT, "{} bytes for {blocks} blocks", buffer.0.len());
        }
    }
}
