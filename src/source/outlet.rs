//! How a source that runs on a thread of its own hands over what it has read, and how it is stopped.
//!
//! Waiting for room and for the lane ends when the source is told to stop: a lane that stands still, because every receiver
//! is down, must not keep the process from ending.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Delivery, Notice, Room, Sender};
use crate::telemetry::Telemetry;

/// The word to stop: said once, heard by every clone, in code that polls descriptors as well as in code that awaits.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    said: Arc<watch::Sender<bool>>,
    /// Readable from then on; nobody reads it.
    wake: Arc<OwnedFd>,
}

impl Stop {
    /// A word that has not been said yet.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn new() -> io::Result<Stop> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop { said: Arc::new(watch::Sender::new(false)), wake: Arc::new(wake) })
    }

    /// Says it.
    pub(crate) fn say(&self) {
        self.said.send_replace(true);
        // The counter of the event can only be full if it was said 2^64 times; it is readable then, too.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// True once it has been said.
    pub(crate) fn is_said(&self) -> bool {
        *self.said.borrow()
    }

    /// Waits until it is said or the time is over, on a thread. True if it is said.
    pub(crate) fn pause(&self, longest: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: longest.as_secs().min(3600) as i64,
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        if poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timeout)).is_err() {
            // Interrupted, or for want of kernel memory: trying again at once would not help.
            std::thread::sleep(longest.min(Duration::from_millis(100)));
        }
        self.is_said()
    }

    /// Waits until it is said.
    pub(crate) async fn heard(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.said.subscribe().wait_for(|said| *said).await;
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The way from one source's thread to the lane.
#[derive(Debug)]
pub(crate) struct Outlet {
    sender: Sender,
    room: Room,
    pub(crate) stop: Stop,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Only to wait in: it has neither timers nor descriptors.
    waiting: Runtime,
}

/// The source is to end: it was told to, or nobody listens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Outlet {
    /// A way to the lane behind `sender`.
    ///
    /// # Errors
    /// The system has nothing left to wait with.
    pub(crate) fn new(
        sender: Sender,
        room: Room,
        stop: Stop,
        telemetry: Arc<Telemetry>,
    ) -> io::Result<Outlet> {
        let waiting = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Outlet { sender, room, stop, telemetry, waiting })
    }

    /// Waits for room for so many bytes.
    pub(crate) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Stopped> {
        if self.stop.is_said() {
            return Err(Stopped);
        }
        if let Some(permit) = self.room.try_take(bytes) {
            return Ok(permit);
        }
        let since = Instant::now();
        let taken = self.waiting.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.heard() => Err(Stopped),
                permit = self.room.take(bytes) => Ok(permit),
            }
        });
        self.telemetry.backpressure(since.elapsed());
        taken
    }

    /// Room for so many bytes, if there is some now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.room.try_take(bytes)
    }

    /// Hands something over if the lane can take it now. Gives it back if not.
    pub(crate) fn offer(&self, delivery: Delivery) -> Result<Option<Delivery>, Stopped> {
        match self.sender.try_send(delivery) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(delivery)) => Ok(Some(delivery)),
            Err(TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Hands something over.
    pub(crate) fn send(&self, delivery: Delivery) -> Result<(), Stopped> {
        let delivery = match self.sender.try_send(delivery) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Stopped),
            Err(TrySendError::Full(delivery)) => delivery,
        };
        let since = Instant::now();
        let sent = self.waiting.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.heard() => Err(Stopped),
                sent = self.sender.send(delivery) => sent.map_err(|_| Stopped),
            }
        });
        self.telemetry.backpressure(since.elapsed());
        sent
    }

    /// Tells the operator something.
    pub(crate) fn notify(&self, notice: Notice) -> Result<(), Stopped> {
        self.send(Delivery::Notice(notice))
    }
}
