//! Bytes as they lie on disk become bytes of text: plain, gzip with any number of members, zstd with any number of frames.
//!
//! What a file is, its first bytes tell, never its name. A truncated or corrupt archive yields everything that decodes
//! before the error is told.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::{Decompress, FlushDecompress, Status};

/// How many first bytes [`sniff`] looks at.
pub(crate) const HEAD: usize = 6;

/// Compressed bytes are read in pieces of this size.
const PIECE: usize = 64 << 10;

/// The largest window that a zstd frame may ask for is two to this power: 16 MiB, twice what `zstd -19` uses. The window
/// is what bounds our memory, so `--ultra -20` and `--long` are refused with advice.
const ZSTD_WINDOW_LOG: u32 = 24;

/// What an input is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// Text that begins after `skip` bytes (a byte order mark).
    Plain {
        /// Bytes before the text.
        skip: usize,
    },
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// Nothing that we read; the reason.
    Foreign(&'static str),
}

/// Tells what an input is. `head` holds its first bytes, [`HEAD`] of them if it has so many.
pub(crate) fn sniff(head: &[u8]) -> Container {
    match head {
        [0xEF, 0xBB, 0xBF, ..] => Container::Plain { skip: 3 },
        [0x1F, 0x8B, ..] => Container::Gzip,
        // A frame, or a skippable frame as parallel compressors write first.
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Container::Zstd,
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            Container::Foreign("encoding: UTF-16, convert it to UTF-8 first")
        }
        [0xFD, b'7', b'z', b'X', b'Z', 0] => Container::Foreign("an xz archive, unpack it first"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Container::Foreign("a bzip2 archive, unpack it first"),
        [b'P', b'K', 3, 4, ..] => Container::Foreign("a zip archive, unpack it first"),
        _ => Container::Plain { skip: 0 },
    }
}

/// Decodes a gzip or zstd archive; hands plain text through.
pub(crate) struct Decoder<R>(Inner<R>);

enum Inner<R> {
    Plain(R),
    Gzip(Gunzip<R>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    /// A decoder of `source`, which is at its first byte and of that kind. Foreign containers are handed through.
    pub(crate) fn new(container: Container, source: R) -> io::Result<Self> {
        Ok(Decoder(match container {
            Container::Plain { .. } | Container::Foreign(_) => Inner::Plain(source),
            Container::Gzip => Inner::Gzip(Gunzip::new(source)),
            Container::Zstd => {
                let source = BufReader::with_capacity(PIECE, source);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Inner::Zstd(Box::new(decoder))
            }
        }))
    }
}

/// Errors are worded for the summary: what is wrong with the archive.
impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(source) => source.read(buffer),
            Inner::Gzip(gunzip) => gunzip.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer).map_err(|error| worded(&error)),
        }
    }
}

fn worded(error: &io::Error) -> io::Error {
    let message = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return error.kind().into(),
        io::ErrorKind::UnexpectedEof => "truncated archive".to_string(),
        _ if error.to_string().contains("too much memory") => {
            "a zstd archive with a window of more than 16 MiB, unpack it first: zstd -d --long=31".to_string()
        }
        _ => format!("corrupt archive: {error}"),
    };
    io::Error::new(error.kind(), message)
}

/// A gzip decoder that keeps what a damaged member still yields, which `flate2`'s readers throw away with the error.
struct Gunzip<R> {
    source: R,
    inflate: Decompress,
    input: Box<[u8]>,
    /// What of `input` is still to be decoded.
    rest: std::ops::Range<usize>,
    /// Between members, before the next one's first byte.
    between: bool,
    failed: bool,
}

impl<R: Read> Gunzip<R> {
    fn new(source: R) -> Self {
        let input = vec![0; PIECE].into_boxed_slice();
        Gunzip { source, inflate: Decompress::new_gzip(15), input, rest: 0..0, between: false, failed: false }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let corrupt =
            |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, format!("corrupt archive: {what}")));
        loop {
            if self.failed {
                return corrupt("invalid gzip data");
            }
            if self.rest.is_empty() {
                self.rest = 0..self.source.read(&mut self.input)?;
                if self.rest.is_empty() && self.between {
                    return Ok(0);
                }
            }
            let input = &self.input[self.rest.clone()];
            if self.between {
                match input[0] {
                    0 => {
                        self.rest.start += 1; // padding
                        continue;
                    }
                    0x1F => self.inflate.reset(true),
                    _ => return corrupt("bytes after its end that are not gzip"),
                }
                self.between = false;
            }
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
            let ended = input.is_empty();
            self.rest.start += (self.inflate.total_in() - taken) as usize;
            let given = (self.inflate.total_out() - given) as usize;
            self.between = matches!(status, Ok(Status::StreamEnd));
            self.failed = status.is_err();
            if given > 0 {
                return Ok(given);
            }
            if ended && !self.between {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated archive"));
            }
        }
    }
}

/// How much of an archive must be equal before its whole length is compared.
const COPY_HEAD: usize = 64 << 10;

/// True if the archive at `archive` holds what the file at `plain` holds, as far as the first 64 KiB and the length tell.
/// Decodes all of the archive, unless `stop` is set meanwhile.
pub(crate) fn is_copy(archive: &Path, plain: &Path, stop: &AtomicBool) -> io::Result<bool> {
    let mut plain = File::open(plain)?;
    let length = plain.metadata()?.len();
    let mut archive = File::open(archive)?;
    let head = read_up_to(&mut archive, HEAD)?;
    let container = sniff(&head);
    let mut decoder = Decoder::new(container, io::Cursor::new(head).chain(archive))?;
    let first = read_up_to(&mut decoder, COPY_HEAD)?;
    if first != read_up_to(&mut plain, COPY_HEAD)? {
        return Ok(false);
    }
    let mut decoded = first.len() as u64;
    let mut buffer = vec![0; COPY_HEAD];
    while decoded <= length && !stop.load(Ordering::Relaxed) {
        match decoder.read(&mut buffer)? {
            0 => return Ok(decoded == length),
            n => decoded += n as u64,
        }
    }
    Ok(false)
}

/// Reads until `wanted` bytes are there or no more come.
pub(crate) fn read_up_to(source: &mut impl Read, wanted: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(wanted);
    source.take(wanted as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text() -> Vec<u8> {
        (0..20_000).flat_map(|n| format!("{{\"line\":{n}}}\n").into_bytes()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What decodes, read in pieces of several sizes, and the error.
    fn check(archive: &[u8], expected: &[u8], error: Option<&str>) {
        for piece in [7, 4096, 1 << 20] {
            let mut decoder = Decoder::new(sniff(archive), archive).unwrap();
            let mut decoded = Vec::new();
            let mut buffer = vec![0; piece];
            let end = loop {
                match decoder.read(&mut buffer) {
                    Ok(0) => break None,
                    Ok(n) => decoded.extend_from_slice(&buffer[..n]),
                    Err(error) => break Some(error.to_string()),
                }
            };
            assert_eq!(end.as_deref(), error, "in pieces of {piece}");
            assert!(
                decoded == expected,
                "{} bytes in pieces of {piece}, not {}",
                decoded.len(),
                expected.len()
            );
        }
    }

    /// What decodes of `archive` must be a prefix of the text, longer than `least`, and then the error.
    fn check_prefix(archive: &[u8], least: usize, error: &str) {
        let mut decoder = Decoder::new(sniff(archive), archive).unwrap();
        let mut decoded = Vec::new();
        let end = decoder.read_to_end(&mut decoded).unwrap_err().to_string();
        assert!(end.starts_with(error), "{end}");
        assert!(text().starts_with(&decoded));
        assert!(decoded.len() > least, "only {} bytes decoded", decoded.len());
    }

    #[test]
    fn whole_archives() {
        let text = text();
        check(&text, &text, None);
        check(&gzip(&text), &text, None);
        check(&zstd(&text), &text, None);
        check(&gzip(b""), b"", None);
        check(b"", b"", None);
    }

    #[test]
    fn many_members_and_frames() {
        let text = text();
        let (a, b) = text.split_at(77_777);
        check(&[gzip(a), gzip(b""), gzip(b)].concat(), &text, None);
        check(&[zstd(a), zstd(b""), zstd(b)].concat(), &text, None);
        check(&[gzip(&text), vec![0; 1000]].concat(), &text, None);
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        check(&[&skippable[..], &zstd(&text)].concat(), &text, None);
    }

    #[test]
    fn truncated_archives_yield_what_decodes() {
        let whole = gzip(&text());
        check_prefix(&whole[..whole.len() / 2], 80_000, "truncated archive");
        check(&whole[..whole.len() - 3], &text(), Some("truncated archive"));
        let whole = zstd(&text());
        check_prefix(&whole[..whole.len() - 10], 100_000, "truncated archive");
        check(&[0x1F, 0x8B, 8], b"", Some("truncated archive"));
    }

    #[test]
    fn corrupt_archives_yield_what_decodes() {
        let mut damaged = gzip(&text());
        let middle = damaged.len() / 2;
        damaged[middle..middle + 50].fill(0xFF);
        check_prefix_any(&damaged, 80_000);
        let mut wrong_sum = gzip(&text());
        let place = wrong_sum.len() - 8;
        wrong_sum[place] ^= 1;
        check(&wrong_sum, &text(), Some("corrupt archive: invalid gzip data"));
        let tail = [gzip(&text()), b"hello".to_vec()].concat();
        check(&tail, &text(), Some("corrupt archive: bytes after its end that are not gzip"));
        let mut wrong_sum = zstd(&text());
        let place = wrong_sum.len() - 1;
        wrong_sum[place] ^= 1;
        let mut decoder = Decoder::new(Container::Zstd, &wrong_sum[..]).unwrap();
        assert!(decoder.read_to_end(&mut Vec::new()).unwrap_err().to_string().starts_with("corrupt archive"));
    }

    /// Bits that decode to something else come before the error, so only the undamaged part is compared.
    fn check_prefix_any(archive: &[u8], least: usize) {
        let mut decoded = Vec::new();
        let error = Decoder::new(sniff(archive), archive).unwrap().read_to_end(&mut decoded).unwrap_err();
        assert!(error.to_string().starts_with("corrupt archive"));
        assert!(decoded.len() > least && text()[..least] == decoded[..least]);
    }

    #[test]
    fn containers_are_told_by_content() {
        for (head, expected) in [
            (&b"{\"kind\""[..], Container::Plain { skip: 0 }),
            (b"\xEF\xBB\xBF{", Container::Plain { skip: 3 }),
            (b"", Container::Plain { skip: 0 }),
            (b"\x1F", Container::Plain { skip: 0 }),
        ] {
            assert_eq!(sniff(head), expected);
        }
        for head in [&b"\xFF\xFE{\0"[..], b"\xFE\xFF\0{", b"PK\x03\x04..", b"BZh91A", b"\xFD7zXZ\0"] {
            assert!(matches!(sniff(head), Container::Foreign(_)));
        }
    }

    #[test]
    fn large_zstd_windows_are_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&text()).unwrap();
        let archive = encoder.finish().unwrap();
        let mut decoder = Decoder::new(Container::Zstd, &archive[..]).unwrap();
        let error = decoder.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("unpack it first"), "{error}");
    }

    #[test]
    fn copies_are_told_by_head_and_length() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, archive) = (directory.path().join("x.log"), directory.path().join("x.log.gz"));
        let stop = AtomicBool::new(false);
        std::fs::write(&plain, text()).unwrap();
        let mut other = text();
        other[3] ^= 1;
        for (content, copy) in [(text(), true), (text()[..100_000].to_vec(), false), (other, false)] {
            std::fs::write(&archive, gzip(&content)).unwrap();
            assert_eq!(is_copy(&archive, &plain, &stop).unwrap(), copy);
        }
        std::fs::write(&archive, &gzip(&text())[..1000]).unwrap();
        assert!(is_copy(&archive, &plain, &stop).is_err());
    }
}
