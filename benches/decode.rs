//! Decodes gzip and zstd archives, one thread a file, and throws the text away: how fast archives can be read at all, by the
//! very libraries that the program has.
//!
//! ```text
//! cargo run --release --example decode -- one.log.gz two.log.zst
//! ```
//!
//! The number of bytes that came out is printed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use flate2::bufread::MultiGzDecoder;

const BLOCK: usize = 1 << 20;

fn decode(path: &str) -> io::Result<u64> {
    let file = BufReader::with_capacity(64 << 10, File::open(path)?);
    let mut text: Box<dyn Read> = if Path::new(path).extension().is_some_and(|suffix| suffix == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
    };
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        match text.read(&mut block)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(|| decode(path))).collect();
        threads.into_iter().map(|thread| thread.join().expect("decoding does not panic")).collect()
    });
    let mut total = 0;
    for (path, result) in paths.iter().zip(results) {
        match result {
            Ok(bytes) => total += bytes,
            Err(error) => {
                eprintln!("decode: {path}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{total} bytes");
    ExitCode::SUCCESS
}
