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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    #[test]
    fn an_empty_pipe_does_not_block_for_ever() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut pipe = Pipe::new(File::from(OwnedFd::from(reader)));
        let mut buffer = [0; 8];
        assert_eq!(pipe.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        writer.write_all(b"abc").unwrap();
        assert_eq!(pipe.read(&mut buffer).unwrap(), 3);
        drop(writer);
        assert_eq!(pipe.read(&mut buffer).unwrap(), 0);
    }
}
