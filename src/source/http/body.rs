//! A request's body, whole and in bounds.
//!
//! Room is taken for bytes before they are read, and given back when the lane has dropped the batch. A body takes its room
//! in steps: it waits for the first, and has nothing yet that others might wait for; for all further ones it never waits, so
//! that no two bodies wait for each other. What is announced but not sent takes no more than the first step.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, timeout};

use super::request::Refusal;
use crate::source::Room;

/// Room is taken in steps of at least this.
const STEP: usize = 1 << 20;
/// How long a body may wait for its first step.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The audit log compresses to a thirtieth at best. What expands further is made to.
const RATIO: usize = 200;
/// Small bodies may expand as they like.
const SMALL: usize = 1 << 20;

/// What a body is limited to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes, before and after decompression.
    pub(super) bytes: usize,
    /// Time between two pieces.
    pub(super) idle: Duration,
}

/// A body that has been read.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) room: OwnedSemaphorePermit,
}

/// Bytes, the room that they take, and why no more come in.
struct Paid {
    bytes: Vec<u8>,
    most: usize,
    room: Room,
    taken: OwnedSemaphorePermit,
    refusal: Option<Refusal>,
}

impl Paid {
    async fn new(expected: usize, most: usize, room: &Room) -> Result<Paid, Refusal> {
        let first = expected.clamp(1, STEP);
        let taken = timeout(PATIENCE, room.take(first)).await.map_err(|_| Refusal::OVERLOAD)?;
        Ok(Paid { bytes: Vec::with_capacity(first), most, room: room.clone(), taken, refusal: None })
    }

    /// Makes room for so many more bytes.
    fn extend(&mut self, more: usize) -> Result<(), Refusal> {
        let length = self.bytes.len() + more;
        if length > self.most {
            return Err(Refusal::TOO_LARGE);
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            // Growing by half at least, so that the bytes are moved a few times at most.
            let capacity_wanted = length.max(capacity + capacity / 2).max(STEP).min(self.most);
            let step = self.room.try_take(capacity_wanted - capacity).ok_or(Refusal::OVERLOAD)?;
            self.taken.merge(step);
            self.bytes.reserve_exact(capacity_wanted - self.bytes.len());
        }
        Ok(())
    }
}

/// The decompressor writes here, at most 32 KiB at a time, so that a bomb is noticed before it has grown.
impl io::Write for Paid {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.extend(bytes.len()) {
            Ok(()) => {
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Err(refusal) => {
                self.refusal = Some(refusal);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a body to its end.
pub(super) async fn read(
    mut body: Incoming,
    gzip: bool,
    limits: Limits,
    room: &Room,
) -> Result<Whole, Refusal> {
    let announced = body.size_hint();
    if announced.lower() > limits.bytes as u64 {
        return Err(Refusal::TOO_LARGE);
    }
    // A compressed body becomes larger, one of unknown length might.
    let expected = announced.exact().map_or(STEP, |length| if gzip { STEP } else { length as usize });
    let paid = Paid::new(expected.min(limits.bytes), limits.bytes, room).await?;
    let paid =
        if gzip { inflate(&mut body, paid, limits).await? } else { copy(&mut body, paid, limits).await? };
    if paid.bytes.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body is empty"));
    }
    Ok(Whole { bytes: paid.bytes.into(), room: paid.taken })
}

async fn copy(body: &mut Incoming, mut paid: Paid, limits: Limits) -> Result<Paid, Refusal> {
    while let Some(piece) = next(body, limits.idle).await? {
        paid.extend(piece.len())?;
        paid.bytes.extend_from_slice(&piece);
    }
    Ok(paid)
}

async fn inflate(body: &mut Incoming, paid: Paid, limits: Limits) -> Result<Paid, Refusal> {
    let mut decoder = MultiGzDecoder::new(paid);
    let mut read = 0;
    while let Some(piece) = next(body, limits.idle).await? {
        // Small pieces of input, because each may become a thousand times as large.
        for piece in piece.chunks(4 << 10) {
            read += piece.len();
            let result = decoder.write_all(piece);
            let paid = decoder.get_mut();
            if let Some(refusal) = paid.refusal.take() {
                return Err(refusal);
            }
            result.map_err(|_| Refusal::BAD_GZIP)?;
            if read > limits.bytes || paid.bytes.len() > SMALL.max(read.saturating_mul(RATIO)) {
                return Err(Refusal::TOO_LARGE);
            }
        }
    }
    if decoder.try_finish().is_err() {
        return Err(decoder.get_mut().refusal.take().unwrap_or(Refusal::BAD_GZIP));
    }
    decoder.finish().map_err(|_| Refusal::BAD_GZIP)
}

/// The next piece, in time.
async fn next(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        match timeout(idle, body.frame()).await {
            Err(_) => return Err(Refusal::SLOW),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body broke off")),
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Takes what is left of a refused body, within limits, so that its sender gets to read why: closing a connection on
/// unread bytes would take the answer away.
pub(super) async fn drain(mut body: Incoming, limits: Limits) {
    let all = async {
        let mut left = limits.bytes;
        while let Ok(Some(piece)) = next(&mut body, limits.idle).await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(PATIENCE, all).await;
}
