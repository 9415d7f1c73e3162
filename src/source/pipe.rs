//! Standard input, read so that waiting for it can be interrupted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long one wait for more may take.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A pipe, a terminal or a socket. A read fails with [`io::ErrorKind::WouldBlock`] when nothing came for a tenth of a
/// second, so that the reader can pass on what it has, and look whether it should stop.
#[derive(Debug)]
pub(crate) struct Pipe(File);

impl Pipe {
    /// A pipe that is already open.
    pub(crate) fn new(file: File) -> Pipe {
        Pipe(file)
    }

    /// The process's standard input as a file of our own.
    pub(crate) fn stdin() -> io::Result<File> {
        Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wanted = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut wanted, Some(&PATIENCE)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => self.0.read(buffer),
            Err(error) => Err(error.into()),
        }
    }
}
