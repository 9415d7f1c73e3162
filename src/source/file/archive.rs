//! A rotated generation inside an archive, read forwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::source::archive::{Container, Decoder};

/// Reads a file from its beginning without moving the cursor that all its descriptors share.
struct Forwards {
    file: Arc<File>,
    at: u64,
}

impl Read for Forwards {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Decodes an archive; what has been decoded and not been asked for is kept, at most a batch and what was peeked at.
pub(super) struct Unpacker {
    file: Arc<File>,
    container: Container,
    decoder: Decoder<Forwards>,
    /// Decoded and not yet taken.
    ahead: Vec<u8>,
    /// Offset of the first byte of `ahead`.
    at: u64,
    /// Why nothing more comes, once that is so.
    end: Option<Result<(), String>>,
}

impl Unpacker {
    /// An archive of that kind, at its beginning.
    pub(super) fn new(file: Arc<File>, container: Container) -> io::Result<Unpacker> {
        let decoder = Decoder::new(container, Forwards { file: Arc::clone(&file), at: 0 })?;
        Ok(Unpacker { file, container, decoder, ahead: Vec::new(), at: 0, end: None })
    }

    /// The file on disk.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Decodes from the beginning again up to `offset`: the archive may have been damaged because it was being written.
    /// Gives the last `anchor` bytes before that, nothing if it does not reach there.
    pub(super) fn again(&mut self, offset: u64, anchor: usize) -> io::Result<Vec<u8>> {
        *self = Unpacker::new(Arc::clone(&self.file), self.container)?;
        Ok(self.advance(offset, anchor).unwrap_or_default())
    }

    /// Decodes until `wanted` bytes are there or no more come.
    pub(super) fn fill(&mut self, wanted: usize) {
        while self.ahead.len() < wanted && self.end.is_none() {
            let filled = self.ahead.len();
            self.ahead.resize(wanted, 0);
            let read = self.decoder.read(&mut self.ahead[filled..]);
            self.ahead.truncate(filled + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => self.end = Some(Ok(())),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    self.end = Some(Err(error.to_string()));
                }
                _ => {}
            }
        }
    }

    /// The next bytes, up to `wanted`, without taking them.
    pub(super) fn peek(&mut self, wanted: usize) -> &[u8] {
        self.fill(wanted);
        &self.ahead[..wanted.min(self.ahead.len())]
    }

    /// Passes over everything before `offset` and gives the last `anchor` bytes of that. `None` if there is not so much.
    pub(super) fn advance(&mut self, offset: u64, anchor: usize) -> Option<Vec<u8>> {
        const STEP: usize = 256 << 10;
        let stop = offset.saturating_sub(anchor as u64);
        while self.at < stop {
            let step = (stop - self.at).min(STEP as u64) as usize;
            if self.take(step).len() < step {
                return None;
            }
        }
        let wanted = (offset - self.at) as usize;
        let before = self.take(wanted);
        (before.len() == wanted).then_some(before)
    }

    /// The next bytes, up to `wanted`; fewer only at the end.
    pub(super) fn take(&mut self, wanted: usize) -> Vec<u8> {
        self.fill(wanted);
        let rest = self.ahead.split_off(wanted.min(self.ahead.len()));
        let taken = std::mem::replace(&mut self.ahead, rest);
        self.at += taken.len() as u64;
        taken
    }

    /// `None` while there may be more; then whether it ended as it should.
    pub(super) fn ended(&self) -> Option<Result<(), &str>> {
        let end = self.end.as_ref()?;
        Some(end.as_ref().copied().map_err(String::as_str))
    }
}
