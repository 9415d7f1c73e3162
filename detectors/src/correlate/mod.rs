//! Sigma correlations in event time: steps in, alerts out.
//!
//! A *step* is one match of a member of one rule. Steps may come in any order and any number of times. What fires is a function of
//! the set of steps alone, so a replay that sorts them and a live run that takes them as they come raise the same alerts.
//!
//! # When a rule fires
//! Time is cut into epoch-aligned *buckets* of the rule's timespan T. A rule fires at most once for a group and a bucket, and the
//! alert's id is made of exactly that: detector name, logic hash, group key, bucket. (Events delivered again after their group
//! was forgotten may raise an alert again, with the same id.)
//!
//! - **Conditions that only grow** (`gte`, `gt`; `temporal` without `not`; `temporal_ordered`) fire at once. Bucket b fires if some
//!   event in b completes the condition over the sliding window (t - T, t] that ends at it. An event that comes late is also
//!   checked against the later events that its window reaches (`window.rs`). For `temporal_ordered` the completing event is
//!   one of the last member; events of the same time are in order.
//! - **Conditions that can become false again** (`lt`, `lte`, `eq`, `neq`, ranges, `not`) are judged on a bucket by itself,
//!   when the watermark (the event clock less 60 s, `clock.rs`) has passed the bucket's end, or at [`Correlator::finish`]: `eq: 3`
//!   means exactly three in that stretch of T. Only groups with at least one event in the bucket are judged: nothing is
//!   said about what never happened at all. Events for a bucket that is closed are counted as late and dropped.
//!
//! What is counted is requests (by identity) or values, each once in a window, however often delivered and whichever members
//! it matched. One event may be several members of a temporal rule, as in Sigma. A step without a value for every group-by
//! field does not join a group ([`StepBuilder::build`]).
//!
//! # Chains
//! A rule may refer to another rule. Its firings are then steps of the outer one: *every* event of the fired bucket at which the
//! inner condition holds is one, all of the same identity (the alert's id). The first of them alone would not do, because
//! which is the first changes when a late event arrives, and an alert cannot be taken back; the set of all of them only grows.
//! So "a burst, then a success" compares the success with any moment at which the burst was on, not with its beginning. A
//! rule that waits for the watermark makes one step, at the last event of its bucket; the rules built on it wait for it.
//!
//! # Time and memory
//! No clock but the events' own, which one forged or wrong time does not move (`clock.rs`). A group keeps its windows while an event
//! that is late by no more than T or 60 s, whichever is longer, can still reach them, so at most between two and three timespans
//! (for timespans below a minute, a minute and two timespans), and beside these the surroundings of the buckets touched
//! last, for events that are older still. Groups live within a budget of bytes (`store.rs`); a group that had to go before
//! its windows were over is counted as evicted, and the later alerts of its rule are marked approximate.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::engine::{Found, Step};
use crate::event::identity::Identity;
use crate::event::time::{Nanos, SECOND};

mod clock;
pub mod record;
mod report;
mod rule;
mod step;
mod store;
#[cfg(test)]
mod tests;
mod window;

pub use rule::{
    COMPUTED, Condition, Expr, Kind, LATENESS, MAX_COUNT, MAX_MEMBERS, MAX_TIMESPAN, Member, Op, Rule,
    Source, subscriptions,
};
pub use step::{Place, StepBuilder};

use clock::Clock;
use report::Firing;
use rule::{Judge, Plan, Taken};
use store::Store;
use window::{BUCKETS, Entry, Group, MOST_BUCKETS, Seen, Windows};

/// The memory that groups may take unless the caller says otherwise.
pub const BUDGET: usize = 24 << 20;

/// How far processes that judge may be behind one another, in event time, without a window being incomplete where their steps
/// come together.
const APART: Nanos = 24 * 3600 * SECOND;

/// What the correlator went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Steps taken.
    pub steps: u64,
    /// Steps that brought nothing new.
    pub repeated: u64,
    /// Steps that came later than windows are kept for (judged on what is left) or after their bucket was closed (dropped).
    pub late: u64,
    /// Times that were more than five minutes ahead of the event clock and that no others confirmed.
    pub future: u64,
    /// Steps that could not be read.
    pub damaged: u64,
    /// Groups that went for want of memory before their windows were over.
    pub evicted: u64,
    /// Alerts marked approximate.
    pub approximate: u64,
    /// Groups held.
    pub groups: u64,
    /// Estimate of the memory they take.
    pub bytes: u64,
}

/// Turns steps into alerts. All steps of a group must go to the same one, and those of all rules of a chain, unless it is a
/// [`Correlator::partial`] one.
#[derive(Debug)]
pub struct Correlator {
    plans: Vec<Plan>,
    cluster: Option<String>,
    store: Store,
    clock: Clock,
    /// Groups that wait for the watermark: when, depth of the rule, group.
    due: BTreeSet<(Nanos, u32, u32)>,
    /// What was due before this is closed.
    closed: Nanos,
    /// By rule: alerts up to this time are approximate, since groups were evicted.
    blurred: Vec<Nanos>,
    derived: Vec<Derived>,
    /// It has some of the groups, and others have the rest.
    partial: bool,
    seen: Seen,
    /// The rule whose stale groups are looked for next.
    sweep: usize,
    stats: Stats,
}

/// For how long the steps of each rule can matter after the event clock has passed them: until no event that is not too late
/// can complete a window that they are in. Steps of a rule that feeds others are needed for as long as what it fires is needed
/// there. The rules must have been checked ([`Correlator::new`]).
pub(crate) fn look_back(rules: &[Rule]) -> Vec<Nanos> {
    let plans = rule::compile(rules.to_vec()).unwrap_or_default();
    let own = |plan: &Plan| plan.keep.saturating_add(1).saturating_mul(plan.rule.timespan);
    let mut spans: Vec<Nanos> = plans.iter().map(own).collect();
    let mut outermost_first: Vec<usize> = (0..plans.len()).collect();
    outermost_first.sort_by_key(|at| std::cmp::Reverse(plans[*at].depth));
    for at in outermost_first {
        let longest = plans[at].feeds.iter().map(|feed| spans[feed.rule as usize]).max();
        spans[at] = spans[at].saturating_add(longest.unwrap_or(0));
    }
    spans
}

/// A step on its way into a group.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    rule: u32,
    member: u8,
    time: Nanos,
    id: u64,
    group: &'a [u8],
    note: &'a [u8],
    inexact: bool,
}

/// A step that a firing makes for an outer rule.
#[derive(Debug)]
struct Derived {
    rule: u32,
    member: u8,
    time: Nanos,
    id: u64,
    group: Vec<u8>,
    note: Vec<u8>,
    inexact: bool,
}

impl Derived {
    /// A step that another correlator takes as this one would have.
    fn step(self) -> Step {
        // Of these, `push` takes the one that the rule counts.
        let (identity, counted) = (unfold(self.id), self.id);
        let Derived { rule, member, time, group, note, inexact, .. } = self;
        let packed = step::Packed { rule, member, inexact, identity, counted, group: &group, note: &note };
        Step { time, bytes: packed.write() }
    }
}

/// Where firings go.
struct Sinks<'a> {
    cluster: Option<&'a str>,
    /// Alerts up to this time are approximate.
    blurred: Nanos,
    stats: &'a mut Stats,
    derived: &'a mut Vec<Derived>,
    found: &'a mut Vec<Found>,
}

/// An identity in the 64 bits that windows keep of it.
fn fold(identity: &Identity) -> u64 {
    let (a, b) = identity.split_at(8);
    let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("half of 16 bytes"));
    half(a) ^ half(b)
}

/// An identity that [`fold`]s to this.
fn unfold(id: u64) -> Identity {
    let mut identity = Identity::default();
    identity[..8].copy_from_slice(&id.to_le_bytes());
    identity
}

impl Correlator {
    /// A correlator without any state. [`BUDGET`] is a good budget.
    ///
    /// # Errors
    /// A rule that cannot be judged, with its name and why.
    pub fn new(rules: Vec<Rule>, budget_bytes: usize) -> Result<Correlator, String> {
        let plans = rule::compile(rules)?;
        Ok(Correlator {
            store: Store::new(plans.len(), budget_bytes),
            blurred: vec![Nanos::MIN; plans.len()],
            plans,
            cluster: None,
            clock: Clock::default(),
            due: BTreeSet::new(),
            closed: Nanos::MIN,
            derived: Vec::new(),
            partial: false,
            seen: Seen::default(),
            sweep: 0,
            stats: Stats::default(),
        })
    }

    /// Names the cluster in alerts.
    #[must_use]
    pub fn with_cluster(mut self, cluster: Option<String>) -> Correlator {
        self.cluster = cluster;
        self
    }

    /// Takes other titles, levels and messages of the same rules. False, and nothing has changed, if they are not the same.
    pub fn adapt(&mut self, rules: Vec<Rule>) -> bool {
        let Ok(plans) = rule::compile(rules) else { return false };
        let key = |plan: &Plan| (plan.rule.name.clone(), plan.rule.step_hash(), plan.rule.silent);
        let same = |(old, new): (&Plan, &Plan)| key(old) == key(new);
        let all = plans.len() == self.plans.len() && self.plans.iter().zip(&plans).all(same);
        if all {
            self.plans = plans;
        }
        all
    }

    /// Makes it one of several that share the groups. What fires is not taken as a step of another rule, whose group may be
    /// another's, but is yielded by [`Correlator::take_derived`]. The steps come by way of processes of which one may be far
    /// behind another, so history is kept for a day beside what windows need. No rule may be one that
    /// waits for the watermark ([`Rule::closes`]).
    #[must_use]
    pub fn partial(mut self) -> Correlator {
        self.partial = true;
        self
    }

    /// The steps that firings were for other rules since it was asked, if it is a [`Correlator::partial`] one.
    pub fn take_derived(&mut self) -> impl Iterator<Item = Step> {
        debug_assert!(self.partial, "others take their own");
        self.derived.drain(..).map(Derived::step)
    }

    /// Takes a step. What it completes is appended to `out`.
    pub fn push(&mut self, step: &Step, out: &mut Vec<Found>) {
        let Some(packed) = step::Packed::read(&step.bytes).filter(|p| self.fits(p)) else {
            self.stats.damaged += 1;
            return;
        };
        self.stats.steps += 1;
        self.advance(step.time, out);
        let plan = &self.plans[packed.rule as usize];
        let patience = plan.patience().max(self.apart());
        let late = |now: Nanos| step.time < now.saturating_sub(patience);
        self.stats.late += u64::from(!plan.rule.closes() && self.clock.now().is_some_and(late));
        let counted = !plan.rule.counted().is_empty();
        self.join(
            Arrival {
                rule: packed.rule,
                member: packed.member,
                time: step.time,
                id: if counted { packed.counted } else { fold(&packed.identity) },
                group: packed.group,
                note: packed.note,
                inexact: packed.inexact,
            },
            out,
        );
        self.drain(out);
        self.sweep();
        self.fit();
    }

    /// Takes note of the time of an event that need not be a step, and closes what is due. Calling it now and then with the
    /// latest event time lets conditions that wait for the watermark fire without having to wait for further steps.
    pub fn advance(&mut self, time: Nanos, out: &mut Vec<Found>) {
        self.clock.observe(time);
        if let Some(watermark) = self.clock.watermark() {
            self.close(watermark, out);
        }
    }

    /// Holds the clock: the inputs are read side by side, and one of them has come no further than `bound` yet. Without this, what
    /// it still holds would be late because another is ahead.
    pub fn hold(&mut self, bound: Option<Nanos>) {
        self.clock.hold(bound);
    }

    /// Ends the input: everything that waits is judged on what has come.
    pub fn finish(&mut self, out: &mut Vec<Found>) {
        self.close(Nanos::MAX - 1, out);
    }

    /// The time by the events, once enough of them agree on it: a forged one doesn't carry it away.
    pub fn now(&self) -> Option<Nanos> {
        self.clock.now()
    }

    /// The counters, and the state of memory.
    pub fn stats(&self) -> Stats {
        Stats {
            future: self.clock.future,
            groups: self.store.len() as u64,
            bytes: self.store.memory() as u64,
            ..self.stats
        }
    }

    /// How much longer than windows need history is kept.
    fn apart(&self) -> Nanos {
        if self.partial { APART } else { 0 }
    }

    /// How many buckets a group of a rule may have.
    fn most_buckets(&self, plan: &Plan) -> usize {
        let history = usize::try_from(self.apart() / plan.rule.timespan.max(1)).unwrap_or(usize::MAX);
        BUCKETS.saturating_add(history).min(MOST_BUCKETS)
    }

    /// True if a packed step is one of these rules'.
    fn fits(&self, packed: &step::Packed<'_>) -> bool {
        self.plans.get(packed.rule as usize).is_some_and(|plan| {
            usize::from(packed.member) < plan.rule.members.len()
                && step::group_values(packed.group).len() == plan.rule.group_by.len()
        })
    }

    fn drain(&mut self, out: &mut Vec<Found>) {
        if self.partial {
            return;
        }
        while let Some(d) = self.derived.pop() {
            let Derived { rule, member, time, id, ref group, ref note, inexact } = d;
            self.join(Arrival { rule, member, time, id, group, note, inexact }, out);
        }
    }

    fn join(&mut self, a: Arrival<'_>, out: &mut Vec<Found>) {
        let plan = &self.plans[a.rule as usize];
        let (bucket, closes) = (plan.bucket(a.time), plan.rule.closes());
        let due = plan.due(bucket);
        let most = self.most_buckets(plan);
        let floor = plan.bucket(self.closed.saturating_sub(self.apart())).saturating_sub(plan.keep);
        if closes && due < self.closed {
            self.stats.late += 1;
            return;
        }
        let (id, new) = self.store.enter(a.rule, if closes { bucket } else { 0 }, a.group);
        let group = self.store.group(id);
        if new && closes {
            group.due = Some(due);
            self.due.insert((due, plan.depth, id));
        }
        let entry = Entry { time: a.time, id: a.id, member: a.member, told: false };
        if group.add(plan, entry, a.note, (floor, most)) {
            let touched = group.buckets.len() - 1;
            group.buckets[touched].inexact |= a.inexact;
            let mut sinks = Sinks {
                cluster: self.cluster.as_deref(),
                blurred: self.blurred[a.rule as usize],
                stats: &mut self.stats,
                derived: &mut self.derived,
                found: out,
            };
            complete(plan, group, bucket, a.time, &mut self.seen, &mut sinks);
            complete(plan, group, bucket.saturating_add(1), a.time, &mut self.seen, &mut sinks);
            group.buckets[touched].settle(plan);
        } else {
            self.stats.repeated += 1;
        }
        self.store.touch(id);
    }

    /// Judges the groups that are due, inner rules before the rules that are built on them.
    fn close(&mut self, watermark: Nanos, out: &mut Vec<Found>) {
        while let Some((due, _, id)) = self.due.first().copied().filter(|(due, ..)| *due <= watermark) {
            self.due.pop_first();
            self.closed = self.closed.max(due);
            let Some(group) = self.store.remove(id) else { continue };
            let plan = &self.plans[group.rule as usize];
            let mut sinks = Sinks {
                cluster: self.cluster.as_deref(),
                blurred: self.blurred[group.rule as usize],
                stats: &mut self.stats,
                derived: &mut self.derived,
                found: out,
            };
            judge_closed(plan, &group, &mut sinks);
            self.drain(out);
        }
        self.closed = self.closed.max(watermark + 1);
    }

    /// Drops groups whose windows are over, a few at a time, once memory is worth saving.
    fn sweep(&mut self) {
        let Some(now) = self.clock.now().filter(|_| self.store.crowded()) else { return };
        let now = now.saturating_sub(self.apart());
        let stale = |plan: &Plan, group: &Group| group.due.is_none() && over(plan, group, now);
        self.sweep = (self.sweep + 1) % self.plans.len();
        let plan = &self.plans[self.sweep];
        for id in self.store.oldest(self.sweep).map(|g| g.filter(|(_, g)| stale(plan, g)).map(|(id, _)| id)) {
            id.and_then(|id| self.store.remove(id));
        }
    }

    /// Evicts groups until the rest fits the budget.
    fn fit(&mut self) {
        while let Some(id) = self.store.excess() {
            let Some(group) = self.store.remove(id) else { return };
            let plan = &self.plans[group.rule as usize];
            if let Some(due) = group.due {
                self.due.remove(&(due, plan.depth, id));
            }
            let (clock, apart) = (self.clock.now(), self.apart());
            let over_at =
                |now: Option<Nanos>| group.due.is_none() && now.is_some_and(|now| over(plan, &group, now));
            let now = clock.map(|now| now.saturating_sub(apart));
            if over_at(now) {
                continue;
            }
            // What was kept only for those that are behind is no loss before they need it.
            self.stats.evicted += u64::from(!over_at(clock));
            let span = plan.rule.timespan;
            let end = group.newest().saturating_add(2).saturating_mul(span);
            let limit = now.map_or(Nanos::MAX, |now| now.saturating_add(apart + 2 * span));
            let blurred = &mut self.blurred[group.rule as usize];
            *blurred = (*blurred).max(end.min(limit));
        }
    }
}

/// True if no event that is not too late can reach the windows of a group.
fn over(plan: &Plan, group: &Group, now: Nanos) -> bool {
    group.newest() < plan.bucket(now).saturating_sub(plan.keep)
}

/// Fires for the windows of one bucket that an event at `from` has completed.
fn complete(
    plan: &Plan,
    group: &mut Group,
    bucket: i64,
    from: Nanos,
    seen: &mut Seen,
    sinks: &mut Sinks<'_>,
) {
    let Some(at) = group.find(bucket) else { return };
    let fired = group.buckets[at].fired;
    if fired && !plan.chained() {
        return;
    }
    let before = group.find(bucket.saturating_sub(1));
    let windows = Windows {
        plan,
        before: before.map_or(&[][..], |b| &group.buckets[b].entries),
        bucket: &group.buckets[at].entries,
    };
    let completing = windows.complete(from, seen);
    let Some(first) = completing.first().map(|i| windows.bucket[*i].time) else { return };
    let mut notes: Vec<&window::Note> =
        before.iter().chain([&at]).flat_map(|b| &group.buckets[*b].notes).collect();
    notes.sort_by_key(|n| n.time);
    let inexact = before.iter().chain([&at]).any(|b| group.buckets[*b].inexact);
    let uuid = report::uuid(&plan.rule, &group.key, bucket);
    if !fired {
        let start = first.saturating_sub(plan.rule.timespan);
        let counting = matches!(plan.judge, Judge::Count(_));
        seen.clear();
        seen.extend(windows.ending(first).map(|e| e.id));
        let earliest = windows.ending(first).last().map_or(first, |e| e.time);
        sinks.alert(Firing {
            plan,
            uuid,
            group: &group.key,
            time: first,
            count: counting.then_some(seen.len() as u64),
            span: (earliest, first),
            steps: windows.steps(first),
            notes: notes.iter().copied().filter(|n| n.time > start && n.time <= first).collect(),
            approximate: inexact,
        });
    }
    for i in &completing {
        let time = windows.bucket[*i].time;
        let note = notes.iter().rev().find(|n| n.time <= time).or(notes.first());
        sinks.derive(plan, &group.key, uuid, time, note.map_or(&[][..], |n| &n.bytes), inexact);
    }
    let bucket = &mut group.buckets[at];
    bucket.fired = true;
    for i in completing {
        bucket.entries[i].told = true;
    }
}

/// Judges the bucket of a group whose rule waits for the watermark.
fn judge_closed(plan: &Plan, group: &Group, sinks: &mut Sinks<'_>) {
    let Some(bucket) = group.buckets.last() else { return };
    let Some(span) = bucket.span else { return };
    let condition = &plan.rule.condition;
    let (holds, count, steps) = if let Judge::CloseMembers = plan.judge {
        let present = bucket.entries.iter().fold(0_u64, |mask, e| mask | 1 << e.member);
        let mut steps: Vec<_> = bucket.entries.iter().map(|e| (e.time, e.member)).collect();
        steps.sort_unstable();
        (condition.holds_members(present, plan.rule.members.len()), None, steps)
    } else {
        let count = bucket.entries.len() as u64;
        (condition.holds_count(count), Some(count), Vec::new())
    };
    if !holds {
        return;
    }
    let uuid = report::uuid(&plan.rule, &group.key, bucket.index);
    let last = bucket.notes.last().map_or(&[][..], |n| &n.bytes);
    sinks.derive(plan, &group.key, uuid, span.1, last, bucket.inexact);
    sinks.alert(Firing {
        plan,
        uuid,
        group: &group.key,
        time: span.1,
        count,
        span,
        steps,
        notes: bucket.notes.iter().collect(),
        approximate: bucket.inexact,
    });
}

impl Sinks<'_> {
    /// Raises an alert, unless the rule fires only for others.
    fn alert(&mut self, mut firing: Firing<'_>) {
        if firing.plan.rule.silent {
            return;
        }
        firing.approximate |= firing.time <= self.blurred;
        self.stats.approximate += u64::from(firing.approximate);
        self.found.push(firing.found(self.cluster));
    }

    /// Makes the steps that a firing at `time` is for other rules.
    fn derive(&mut self, plan: &Plan, group: &[u8], uuid: Uuid, time: Nanos, note: &[u8], inexact: bool) {
        if plan.feeds.is_empty() {
            return;
        }
        let inexact = inexact || time <= self.blurred;
        let (values, note) = (step::group_values(group), step::Note::read(note));
        for feed in &plan.feeds {
            let mut counted = step::Values::default();
            feed.counted.iter().for_each(|i| counted.add(values[*i]));
            let shown = |t: &Taken| match t {
                Taken::FromGroup(i) => Some(values[*i]),
                Taken::FromShown(i) => note.as_ref().and_then(|n| *n.shown.get(*i)?),
                Taken::Nowhere => None,
            };
            let shown = feed.shown.iter().map(shown).collect();
            let place = note.as_ref().map(|n| n.place);
            self.derived.push(Derived {
                rule: feed.rule,
                member: feed.member,
                time,
                id: if feed.counted.is_empty() { fold(uuid.as_bytes()) } else { counted.hash() },
                group: step::pack_group(feed.group.iter().map(|i| values[*i])),
                note: place.map_or_else(Vec::new, |place| step::Note { place, shown }.write()),
                inexact,
            });
        }
    }
}
