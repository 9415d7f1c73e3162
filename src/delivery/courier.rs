//! One output's way: from the log to the receiver, at a pace of its own.
//!
//! Guarantees: alerts go out in the order of the log; one that could not be delivered is tried again until it is, or is in the
//! dead letters; only then does the cursor pass it. What the cursor has passed is not sent again after a restart; what was
//! sent and not yet passed is, with the same uuid. Where the receiver can never come back (standard output whose reader has
//! gone), alerts are dropped and counted while other outputs go on, and kept if there is no other: then the run ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use detectors::event::time::{self, Nanos};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Entry;
use super::cursor::Cursor;
use super::dead::Dead;
use super::group::{Closed, Effect, Fate, Groups};
use super::log::{Place, Reader};
use super::spool::{Spool, Spools};
use crate::lane::{Order, Raised};
use crate::outputs::damaged;
use crate::sink::{Batch, Common, Item, Outcome, RateLimit, Transport};
use crate::telemetry::Telemetry;

/// The first pause after a failure, at most.
const SHORTEST: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const LONGEST: Duration = Duration::from_secs(60);

/// What couriers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Deliver what comes.
    Running,
    /// Nothing more will come: deliver what is there, until then at the latest.
    Draining(Instant),
}

/// A wish that comes amid the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Open files anew, read certificates anew.
    Reopen,
    /// End as soon as can be: another courier takes over.
    Retire,
}

/// What a courier works with.
#[derive(Debug)]
pub(crate) struct Courier {
    /// What the configuration says of the output.
    pub(crate) common: Common,
    /// The output's name.
    pub(crate) name: String,
    /// The way out.
    pub(crate) transport: Transport,
    /// What is to be delivered.
    pub(crate) reader: Reader,
    /// What has been.
    pub(crate) cursor: Cursor,
    /// Repeats that are held back.
    pub(crate) groups: Option<Groups>,
    /// What others know of it.
    pub(crate) spool: Arc<Spool>,
    /// What it knows of others.
    pub(crate) spools: Spools,
    /// Where alerts go that nobody will ever accept.
    pub(crate) dead: Arc<Dead>,
    /// Counters.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where alerts about the run go.
    pub(crate) raise: mpsc::Sender<Order>,
    /// The latest event time, which closes groups.
    pub(crate) latest: watch::Receiver<Nanos>,
    /// Wishes.
    pub(crate) wishes: mpsc::Receiver<Wish>,
    /// When to end.
    pub(crate) phase: watch::Receiver<Phase>,
    /// True if what is left when it ends is still there at the next start.
    pub(crate) durable: bool,
}

/// An alert that is being delivered.
#[derive(Debug)]
struct Pending {
    /// Where the cursor stands once it is done. None for a follow-up.
    place: Option<Place>,
    bytes: u64,
    /// The alert; none once it is done.
    item: Option<Arc<Item>>,
    /// What it changes of the groups once it is done.
    effect: Option<Effect>,
    attempts: u32,
    first_tried: Option<Instant>,
}

/// What is left to be sent again after a call of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Nothing.
    Nothing,
    /// Something, after a pause of our own.
    Later,
    /// Something, after the pause that the receiver asks for.
    After(Duration),
}

impl Again {
    /// This and another: the longer pause counts.
    fn and(self, after: Option<Duration>) -> Again {
        match (self, after) {
            (Again::After(one), Some(other)) => Again::After(one.max(other)),
            (Again::After(after), None) | (_, Some(after)) => Again::After(after),
            (_, None) => Again::Later,
        }
    }
}

/// An alert of the log that nobody has looked at yet.
#[derive(Debug)]
struct Read {
    /// Where the cursor stands once it is done.
    place: Place,
    bytes: u64,
    /// None if it cannot be read.
    item: Option<Item>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

/// The work of a courier, with what it holds while it works.
struct Work {
    c: Courier,
    /// What was read while the receiver had the word.
    ahead: VecDeque<Read>,
    pending: VecDeque<Pending>,
    pace: Pace,
    /// Pause after a failure; doubled with each.
    pause: Duration,
    /// What is done and not yet remembered.
    passed: Passed,
    /// When nothing waited last; none if something has since the start. What waits now came later.
    idle: Option<Nanos>,
    /// When groups were saved, and when the cursor was synced.
    saved: Instant,
    synced: Instant,
}

/// Alerts that are done.
#[derive(Debug, Default)]
struct Passed {
    bytes: u64,
    alerts: u64,
    place: Option<Place>,
}

/// Saving groups writes all of them: no more often than this while there is work.
const SAVE: Duration = Duration::from_millis(250);
/// The cursor is made safe against a power cut this often.
const SYNC: Duration = Duration::from_secs(5);

impl Courier {
    /// Delivers until it is told to end. Returns when the cursor is safe.
    pub(crate) async fn run(self) {
        let pace = Pace::new(self.common.rate_limit);
        let now = Instant::now();
        let mut work = Work {
            c: self,
            ahead: VecDeque::new(),
            pending: VecDeque::new(),
            pace,
            pause: SHORTEST,
            passed: Passed::default(),
            idle: None,
            saved: now,
            synced: now,
        };
        while work.step().await == Next::Go {}
        work.remember(true);
        let c = work.c;
        if let Err(error) = c.cursor.sync() {
            c.telemetry.durability_error("a cursor", &error);
        }
        c.transport.close().await;
    }
}

impl Work {
    async fn step(&mut self) -> Next {
        match self.c.wishes.try_recv() {
            Ok(Wish::Reopen) => self.c.transport.reopen().await,
            Ok(Wish::Retire) | Err(TryRecvError::Disconnected) => return Next::End,
            Err(TryRecvError::Empty) => {}
        }
        self.drop_oldest();
        if let Err(error) = self.fill() {
            self.c.telemetry.durability_error("reading the log", &error);
            return self.rest(SHORTEST).await;
        }
        for damage in self.c.reader.take_damage() {
            // A lane that is too busy to listen has other troubles.
            let _ = self.c.raise.try_send(Order::Raise(damaged(&damage)));
        }
        self.settle();
        let items = self.due();
        if items.is_empty() {
            return self.wait().await;
        }
        if self.c.spool.is_gone() {
            return self.without_receiver().await;
        }
        if let Some(wait) = self.pace.wait(items.len()) {
            return self.rest(wait).await;
        }
        let began = Instant::now();
        let Some(outcomes) = self.send(&items).await else { return Next::End };
        if self.c.transport.is_gone() {
            self.c.spools.lose(&self.c.spool);
            return Next::Go;
        }
        let again = self.apply(outcomes, began);
        self.settle();
        let pause = match again {
            Again::Nothing => {
                self.pause = SHORTEST;
                return Next::Go;
            }
            Again::Later => self.pause.mul_f64(0.1 + 0.9 * fastrand::f64()),
            Again::After(after) => after.min(LONGEST * 5),
        };
        self.pause = (self.pause * 2).min(LONGEST);
        self.c.telemetry.retried(&self.c.name);
        self.rest(pause).await
    }

    /// Reads alerts until there are enough for one call of the transport.
    fn fill(&mut self) -> std::io::Result<()> {
        let Batch { max_items, max_bytes, .. } = self.c.transport.batch();
        let size = |pending: &Pending| pending.item.as_ref().map_or(0, |item| item.line.len());
        let mut held: usize = self.pending.iter().map(size).sum();
        while self.pending.len() < max_items && held < max_bytes {
            let Some(Read { place, bytes, item }) = self.ahead.pop_front() else {
                if read(&mut self.c.reader, &mut self.ahead)? {
                    continue;
                }
                if self.pending.iter().all(|pending| pending.item.is_none()) {
                    self.idle = Some(now());
                }
                break;
            };
            let (item, effect) = match item {
                Some(item) => self.wanted(Arc::new(item)),
                // It was written by us and has a checksum: only another version can have written what we can't read.
                None => {
                    self.c.telemetry.dropped(&self.c.name, "unreadable", 1);
                    (None, None)
                }
            };
            held += item.as_ref().map_or(0, |item| item.line.len());
            let place = Some(place);
            self.pending.push_back(Pending { place, bytes, item, effect, attempts: 0, first_tried: None });
        }
        Ok(())
    }

    /// The alert, if it is for this output and is not held back.
    fn wanted(&mut self, item: Arc<Item>) -> (Option<Arc<Item>>, Option<Effect>) {
        if !self.c.common.wants(&item.alert) {
            return (None, None);
        }
        let Some(groups) = &mut self.c.groups else { return (Some(item), None) };
        let mut closed = Vec::new();
        let (fate, effect) = groups.take(&item, &mut closed);
        self.follow_up(closed);
        if fate == Fate::Held {
            self.c.telemetry.suppressed("repeat", 1);
            return (None, effect);
        }
        (Some(item), effect)
    }

    fn follow_up(&mut self, closed: Vec<Closed>) {
        let pending = |(item, effect)| Pending {
            place: None,
            bytes: 0,
            item,
            effect: Some(effect),
            attempts: 0,
            first_tried: None,
        };
        self.pending.extend(closed.into_iter().map(pending));
    }

    /// Takes what is done off the front.
    fn settle(&mut self) {
        while let Some(first) = self.pending.pop_front_if(|first| first.item.is_none()) {
            self.passed.bytes += first.bytes;
            self.passed.alerts += u64::from(first.place.is_some());
            self.passed.place = first.place.or(self.passed.place);
            if let (Some(groups), Some(effect)) = (&mut self.c.groups, first.effect) {
                groups.settle(effect);
            }
        }
        self.remember(false);
    }

    /// Moves the cursor past what is done; with groups not at every turn, unless it must be `now`.
    fn remember(&mut self, now: bool) {
        let Work { c, ahead, passed, pending, .. } = self;
        // Also while nothing passes: that is when somebody has to know. An event may be much older than its alert.
        let oldest = pending.iter().find_map(|pending| pending.item.as_ref());
        let event = oldest.and_then(|item| time::parse(item.alert.time.as_bytes()));
        c.telemetry.spool_oldest(&c.name, event.map(|event| event.max(self.idle.unwrap_or(event))));
        let changed = c.groups.as_ref().is_some_and(Groups::changed);
        if changed && !now && self.saved.elapsed() < SAVE {
            return;
        }
        if pending.is_empty() && ahead.is_empty() {
            c.spool.done(0, 0, c.reader.place().consumed());
        }
        let Passed { bytes, alerts, place } = std::mem::take(passed);
        if let Some(groups) = c.groups.as_mut().filter(|_| changed) {
            self.saved = Instant::now();
            let place = place.unwrap_or(groups.place());
            if let Err(error) = groups.save(place) {
                c.telemetry.durability_error("held back repeats", &error);
            }
        }
        let Some(place) = place else { return };
        if let Err(error) = c.cursor.save(place) {
            c.telemetry.durability_error("a cursor", &error);
        }
        if self.synced.elapsed() >= SYNC {
            self.synced = Instant::now();
            if let Err(error) = c.cursor.sync() {
                c.telemetry.durability_error("a cursor", &error);
            }
        }
        c.spool.done(bytes, alerts, place.consumed());
        let (bytes, alerts) = c.spool.waiting();
        c.telemetry.spool(&c.name, alerts, bytes);
    }

    /// What one call of the transport may take.
    fn due(&self) -> Vec<Arc<Item>> {
        let batch = self.c.transport.batch();
        let mut bytes = 0;
        let undone = self.pending.iter().filter_map(|pending| pending.item.as_ref());
        let fits = |item: &&Arc<Item>| {
            bytes += item.line.len();
            bytes == item.line.len() || bytes <= batch.max_bytes
        };
        let limit = self.c.common.rate_limit.map_or(usize::MAX, |limit| limit.alerts as usize);
        undone.take(batch.max_items.min(limit)).take_while(fits).cloned().collect()
    }

    /// Sends, and reads what comes next while the receiver has the word. None if it is to end before it is done.
    async fn send(&mut self, items: &[Arc<Item>]) -> Option<Vec<Outcome>> {
        let Work { c, ahead, .. } = self;
        let Batch { max_items, max_bytes, .. } = c.transport.batch();
        let reader = &mut c.reader;
        let reading = async {
            let size = |read: &Read| read.bytes as usize;
            let mut held: usize = ahead.iter().map(size).sum();
            while ahead.len() < max_items && held < max_bytes {
                let before = ahead.len();
                // What cannot be read is asked for again, and told of, when its turn comes.
                if !read(reader, ahead).unwrap_or(false) {
                    break;
                }
                held += ahead.range(before..).map(size).sum::<usize>();
            }
        };
        let mut phase = c.phase.clone();
        let mut reopen = false;
        let outcomes = {
            // First all is on its way, then there is time for reading.
            let sending = async { tokio::join!(biased; c.transport.send(items), reading).0 };
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    outcomes = &mut sending => break Some(outcomes),
                    () = deadline(&mut phase) => break None,
                    wish = c.wishes.recv() => match wish {
                        Some(Wish::Reopen) => reopen = true,
                        Some(Wish::Retire) | None => break None,
                    },
                }
            }
        };
        if reopen {
            c.transport.reopen().await;
        }
        outcomes
    }

    /// Notes what became of alerts, and what is to be sent again.
    fn apply(&mut self, outcomes: Vec<Outcome>, began: Instant) -> Again {
        let patience = self.c.transport.gives_up_after();
        let (mut sent, mut again) = (0, Again::Nothing);
        let mut outcomes = outcomes.into_iter();
        for pending in self.pending.iter_mut().filter(|pending| pending.item.is_some()) {
            let Some(outcome) = outcomes.next() else { break };
            pending.attempts += 1;
            let tried = *pending.first_tried.get_or_insert(began);
            let reason = match outcome {
                Outcome::Accepted => {
                    sent += 1;
                    pending.item = None;
                    continue;
                }
                Outcome::Retry { after, reason } if patience.is_none_or(|most| tried.elapsed() < most) => {
                    self.c.telemetry.failed(&self.c.name, &reason);
                    again = again.and(after);
                    continue;
                }
                Outcome::Retry { reason, .. } => {
                    format!("given up after {} attempts: {reason}", pending.attempts)
                }
                Outcome::Rejected { reason } => reason,
            };
            let Some(item) = &pending.item else { continue };
            match self.c.dead.reject_alert(&self.c.name, &reason, pending.attempts, &item.line) {
                Ok(()) => {
                    self.c.telemetry.dead_letter(&self.c.name, "rejected");
                    let raised = Raised {
                        detector: "integrity/dead-letter",
                        of: self.c.name.clone(),
                        message: format!(
                            "an alert for {} was not accepted: {reason}; it is in the dead letters",
                            self.c.name
                        ),
                        identity: format!("{}\0{}", self.c.name, item.uuid),
                    };
                    // A lane that is too busy to listen has other troubles; the letter is counted.
                    let _ = self.c.raise.try_send(Order::Raise(raised));
                    pending.item = None;
                }
                Err(error) => {
                    self.c.telemetry.durability_error("the dead letters", &error);
                    again = again.and(None);
                }
            }
        }
        if sent > 0 {
            self.c.telemetry.sent(&self.c.name, sent, began.elapsed());
        }
        self.pace.sent(sent);
        again
    }

    /// Gives up the oldest alerts of a spool that overflows, and tells how many.
    fn drop_oldest(&mut self) {
        let excess = self.c.spool.excess();
        let (mut bytes, mut dropped) = (0, 0);
        while bytes < excess {
            let undone = self.pending.iter_mut().find(|pending| pending.item.is_some());
            if let Some(first) = undone {
                first.item = None;
                bytes += first.bytes;
                dropped += 1;
                continue;
            }
            bytes += self.pending.iter().map(|pending| pending.bytes).sum::<u64>();
            self.settle();
            if self.fill().is_err() || self.pending.is_empty() {
                break;
            }
        }
        if dropped == 0 {
            return;
        }
        self.settle();
        self.remember(true);
        self.c.telemetry.dropped(&self.c.name, "spool_overflow", dropped);
        let raised = Raised {
            detector: "integrity/spool-full",
            of: self.c.name.clone(),
            message: format!("{dropped} alerts for {} were dropped: its spool was full", self.c.name),
            identity: format!("{}\0dropped\0{:?}", self.c.name, self.c.cursor.place()),
        };
        // A lane that is too busy to listen has other troubles; the drop is counted.
        let _ = self.c.raise.try_send(Order::Raise(raised));
    }

    /// There are alerts, and nobody will ever take them here.
    async fn without_receiver(&mut self) -> Next {
        if self.c.spools.are_gone() {
            // The run is about to end, and there is nothing to be done until it does.
            let draining = matches!(*self.c.phase.borrow(), Phase::Draining(_));
            return if draining { Next::End } else { self.rest(SHORTEST).await };
        }
        let dropped = self.pending.iter_mut().filter_map(|pending| pending.item.take()).count();
        self.c.telemetry.dropped(&self.c.name, "receiver_gone", dropped as u64);
        self.settle();
        Next::Go
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) -> Next {
        self.remember(true);
        let Work { c, .. } = self;
        if let Phase::Draining(_) = *c.phase.borrow_and_update() {
            return Next::End;
        }
        let mut told = Vec::new();
        tokio::select! {
            biased; // alerts come before the time that they are of
            more = c.reader.wait() => if !more && matches!(*c.phase.borrow(), Phase::Running) {
                return Next::End; // there is no log any more
            },
            _ = c.phase.changed() => {}
            wish = c.wishes.recv() => match wish {
                Some(Wish::Reopen) => c.transport.reopen().await,
                Some(Wish::Retire) | None => return Next::End,
            },
            Ok(()) = c.latest.changed() => {
                let latest = *c.latest.borrow_and_update();
                if let Some(groups) = &mut c.groups {
                    groups.advance(latest, &mut told);
                }
            }
        }
        self.follow_up(told);
        Next::Go
    }

    /// Waits for some time, or until something else is to be done.
    async fn rest(&mut self, time: Duration) -> Next {
        let Work { c, .. } = self;
        let draining = matches!(*c.phase.borrow_and_update(), Phase::Draining(_));
        if draining && c.durable {
            return Next::End; // the rest is in the log
        }
        let mut phase = c.phase.clone();
        let resting = async {
            let until = Instant::now() + time;
            while Instant::now() < until && c.spool.excess() == 0 {
                tokio::time::sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
            }
        };
        tokio::select! {
            () = resting => Next::Go,
            () = deadline(&mut phase) => Next::End,
            wish = c.wishes.recv() => match wish {
                Some(Wish::Reopen) => {
                    c.transport.reopen().await;
                    Next::Go
                }
                Some(Wish::Retire) | None => Next::End,
            },
            _ = c.phase.changed() => Next::Go,
        }
    }
}

fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as Nanos
}

/// Reads the next record with alerts. False: that was all that there is.
///
/// # Errors
/// Those of [`Reader::next`].
fn read(reader: &mut Reader, ahead: &mut VecDeque<Read>) -> std::io::Result<bool> {
    let Some(chunk) = reader.next()? else { return Ok(false) };
    let places: Vec<Place> = (1..=chunk.entries.len()).map(|done| chunk.after(done)).collect();
    let read = |(entry, place): (Entry, Place)| Read {
        place,
        bytes: entry.json.len() as u64,
        item: Item::parse(entry.json).ok(),
    };
    ahead.extend(chunk.entries.into_iter().zip(places).map(read));
    Ok(true)
}

/// Waits until the time to end has come.
async fn deadline(phase: &mut watch::Receiver<Phase>) {
    loop {
        let until = match *phase.borrow_and_update() {
            Phase::Running => None,
            Phase::Draining(until) => Some(until),
        };
        match until {
            Some(until) => return tokio::time::sleep_until(until).await,
            None if phase.changed().await.is_err() => return std::future::pending().await,
            None => {}
        }
    }
}

/// Keeps to a limit of alerts in a span of time: so many at once, then as many as the time brings back.
#[derive(Debug)]
struct Pace {
    limit: Option<RateLimit>,
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new(limit: Option<RateLimit>) -> Pace {
        let tokens = limit.map_or(0.0, |limit| f64::from(limit.alerts));
        Pace { limit, tokens, at: Instant::now() }
    }

    /// How long to wait before so many may be sent. More than the limit at once need only the limit.
    fn wait(&mut self, alerts: usize) -> Option<Duration> {
        let limit = self.limit?;
        let most = f64::from(limit.alerts);
        let now = Instant::now();
        let gained = (now - self.at).as_secs_f64() / limit.per.0.as_secs_f64() * most;
        (self.tokens, self.at) = ((self.tokens + gained).min(most), now);
        let missing = (alerts as f64).min(most) - self.tokens;
        (missing > 0.0).then(|| limit.per.0.mul_f64(missing / most))
    }

    fn sent(&mut self, alerts: u64) {
        self.tokens -= alerts as f64;
    }
}
