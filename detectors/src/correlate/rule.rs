//! Correlation rules as data, and what is worked out from them once, at start-up.

use sha2::{Digest as _, Sha256};

use super::step::FORM;
use crate::event::time::{Nanos, SECOND};
use crate::level::Level;

/// How late an event may come and still be judged as if it had come in time.
pub const LATENESS: Nanos = 60 * SECOND;

/// Members that a rule may have.
pub const MAX_MEMBERS: usize = 64;

/// The longest window: 18 years.
pub const MAX_TIMESPAN: Nanos = Nanos::MAX / 16;

/// The highest number that a condition may compare with: windows remember that many events.
pub const MAX_COUNT: u64 = 100_000;

/// Sigma's correlation types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// How many events.
    EventCount,
    /// How many distinct values; several fields are one value together.
    ValueCount {
        /// The counted fields (or aliases).
        fields: Vec<String>,
    },
    /// Which members, in any order.
    Temporal,
    /// All members, in the order in which they are listed. Events of the same time are in order.
    TemporalOrdered,
}

/// Whose matches a member stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A detector, by its index among the engine's detectors.
    Detector(u32),
    /// Another correlation, by its index in the list of rules.
    Correlation(u32),
}

/// One entry of Sigma's `rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Whose matches.
    pub source: Source,
    /// Its title, for the steps of an alert.
    pub title: String,
    /// Sigma's `aliases` as they apply to this member: alias, field.
    pub aliases: Vec<(String, String)>,
}

/// Comparisons of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Sigma's words
pub enum Op {
    Lt,
    Lte,
    Gt,
    Gte,
    Eq,
    Neq,
}

/// A boolean expression over members, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Expr {
    Member(u8),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
}

/// When a rule fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// When every member matched: the default of the temporal kinds, and the only one of [`Kind::TemporalOrdered`].
    AllMembers,
    /// When the number of events, of values or (temporal) of distinct members passes all comparisons.
    Count(Vec<(Op, u64)>),
    /// When the expression holds for the members that matched ([`Kind::Temporal`] only).
    Members(Expr),
}

/// A correlation rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `family/name`.
    pub name: String,
    /// Index among the engine's detectors.
    pub index: u32,
    /// The title.
    pub title: String,
    /// What is counted or awaited.
    pub kind: Kind,
    /// Sigma's `rules`.
    pub members: Vec<Member>,
    /// Sigma's `group-by`: fields or aliases. Empty: all events are one group.
    pub group_by: Vec<String>,
    /// The window, at least a second.
    pub timespan: Nanos,
    /// When it fires.
    pub condition: Condition,
    /// Further fields of the events that the alert shows: those that the message names, and Sigma's `fields`.
    pub fields: Vec<String>,
    /// True if it fires only for the correlations that refer to it and makes no alert of its own.
    pub silent: bool,
    /// Hash of its logic and that of its members.
    pub logic_hash: [u8; 32],
    /// The level, unless a grade says otherwise.
    pub level: Level,
    /// Comparisons of the count, and the level if all hold; the first that does counts. Only for counts that are final when
    /// they are judged ([`Rule::closes`]).
    pub grades: Vec<(Vec<(Op, u64)>, Level)>,
    /// Sigma tags.
    pub tags: Vec<String>,
    /// Template of the alert's sentence: what [`Rule::fields`] names, `{count}`, `{window}`, `{first_seen}`, `{last_seen}`.
    pub message: Option<String>,
}

/// Placeholders and output fields that the correlator fills in.
pub const COMPUTED: [&str; 4] = ["count", "window", "first_seen", "last_seen"];

impl Op {
    /// Compares.
    pub fn holds(self, n: u64, limit: u64) -> bool {
        match self {
            Op::Lt => n < limit,
            Op::Lte => n <= limit,
            Op::Gt => n > limit,
            Op::Gte => n >= limit,
            Op::Eq => n == limit,
            Op::Neq => n != limit,
        }
    }
}

impl Expr {
    /// Evaluates on the members that matched, one bit each.
    pub fn holds(&self, present: u64) -> bool {
        match self {
            Expr::Member(m) => present >> m & 1 == 1,
            Expr::All(parts) => parts.iter().all(|p| p.holds(present)),
            Expr::Any(parts) => parts.iter().any(|p| p.holds(present)),
            Expr::Not(part) => !part.holds(present),
        }
    }

    fn grows(&self) -> bool {
        match self {
            Expr::Member(_) => true,
            Expr::All(parts) | Expr::Any(parts) => parts.iter().all(Expr::grows),
            Expr::Not(_) => false,
        }
    }

    fn highest(&self) -> Option<u8> {
        match self {
            Expr::Member(m) => Some(*m),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().filter_map(Expr::highest).max(),
            Expr::Not(part) => part.highest(),
        }
    }
}

impl Condition {
    /// True if more events can never make it false again.
    fn grows(&self) -> bool {
        match self {
            Condition::AllMembers => true,
            Condition::Count(ops) => ops.iter().all(|(op, _)| matches!(op, Op::Gt | Op::Gte)),
            Condition::Members(expr) => expr.grows(),
        }
    }

    /// Evaluates on a count.
    pub(super) fn holds_count(&self, n: u64) -> bool {
        match self {
            Condition::Count(ops) => passes(ops, n),
            Condition::AllMembers | Condition::Members(_) => n > 0,
        }
    }

    /// Evaluates on the members that matched, one bit each.
    pub(super) fn holds_members(&self, present: u64, members: usize) -> bool {
        match self {
            Condition::AllMembers => present.count_ones() as usize == members,
            Condition::Count(_) => self.holds_count(u64::from(present.count_ones())),
            Condition::Members(expr) => expr.holds(present),
        }
    }
}

/// True if all comparisons hold.
fn passes(ops: &[(Op, u64)], n: u64) -> bool {
    ops.iter().all(|(op, limit)| op.holds(n, *limit))
}

impl Rule {
    /// The level of an alert with this count.
    pub(super) fn level(&self, count: Option<u64>) -> Level {
        let graded = count.and_then(|n| self.grades.iter().find(|(when, _)| passes(when, n)));
        graded.map_or(self.level, |(_, level)| *level)
    }

    /// The fields of a member's event that a step carries: the group-by fields, then the counted ones, then those shown.
    /// Aliases are resolved. The engine turns them into accessors once.
    pub fn fields_for(&self, member: usize) -> Vec<&str> {
        let aliases = self.members.get(member).map_or(&[][..], |m| &m.aliases);
        let resolve = |name: &'_ str| aliases.iter().position(|(alias, _)| alias == name);
        self.names().into_iter().map(|name| resolve(name).map_or(name, |at| aliases[at].1.as_str())).collect()
    }

    /// True if the rule waits until no event of a window can still come.
    pub fn closes(&self) -> bool {
        self.kind != Kind::TemporalOrdered && !self.condition.grows()
    }

    /// The names of what a step carries, in order.
    pub(super) fn names(&self) -> Vec<&str> {
        let group = self.group_by.iter().map(String::as_str);
        group.chain(self.counted().iter().map(String::as_str)).chain(self.shown()).collect()
    }

    /// The fields whose distinct values are counted.
    pub(super) fn counted(&self) -> &[String] {
        match &self.kind {
            Kind::ValueCount { fields } => fields,
            _ => &[],
        }
    }

    /// What steps of the rule depend on: its logic, the form of steps, and the fields that they bring along, which have places
    /// and no names there.
    pub(crate) fn step_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.logic_hash);
        hash.update([FORM]);
        for name in self.shown() {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        hash.finalize().into()
    }

    /// The fields shown beside those of the group: the counted ones, and those of the message and of Sigma's `fields`.
    pub(super) fn shown(&self) -> Vec<&str> {
        let mut shown: Vec<&str> = Vec::new();
        let counted = self.counted().iter().map(String::as_str);
        let fields = self.fields.iter().map(String::as_str);
        for name in counted.chain(fields) {
            let known =
                COMPUTED.contains(&name) || self.group_by.iter().any(|g| g == name) || shown.contains(&name);
            if !known {
                shown.push(name);
            }
        }
        shown
    }
}

/// For each detector, the rules and members that its matches are steps of.
pub fn subscriptions(rules: &[Rule]) -> Vec<(u32, Vec<(u32, u8)>)> {
    let mut by_detector = std::collections::BTreeMap::<u32, Vec<(u32, u8)>>::new();
    for (index, rule) in rules.iter().enumerate() {
        for (member, m) in rule.members.iter().enumerate() {
            if let Source::Detector(detector) = m.source {
                by_detector.entry(detector).or_default().push((index as u32, member as u8));
            }
        }
    }
    by_detector.into_iter().collect()
}

/// How a rule is judged.
#[derive(Debug)]
pub(super) enum Judge {
    /// At once, when this many distinct ids are in a window.
    Count(usize),
    /// At once, when the members in a window satisfy the condition.
    Members,
    /// At once, when the members stand in a window in order.
    Ordered,
    /// On close, by the distinct ids of a bucket, of which this many are worth remembering.
    CloseCount(usize),
    /// On close, by the members in a bucket.
    CloseMembers,
}

/// A correlation that a rule's firing is a step of.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) rule: u32,
    pub(super) member: u8,
    /// Which of the inner rule's group values the outer rule groups by, counts and shows.
    pub(super) group: Vec<usize>,
    pub(super) counted: Vec<usize>,
    pub(super) shown: Vec<Taken>,
}

/// Where an outer rule's shown field comes from.
#[derive(Debug)]
pub(super) enum Taken {
    FromGroup(usize),
    FromShown(usize),
    Nowhere,
}

/// A rule and what follows from it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rule: Rule,
    pub(super) judge: Judge,
    pub(super) feeds: Vec<Feed>,
    /// How much later than an event a step may come because it was derived from a rule that waits.
    pub(super) extra: Nanos,
    /// How many buckets to either side of a recent one may still matter.
    pub(super) keep: i64,
    /// Rules that it is built on come before it.
    pub(super) depth: u32,
}

impl Plan {
    /// The epoch-aligned bucket of a time.
    pub(super) fn bucket(&self, time: Nanos) -> i64 {
        time.div_euclid(self.rule.timespan)
    }

    /// Until when an event can still be late without a window being incomplete.
    pub(super) fn patience(&self) -> Nanos {
        self.rule.timespan.max(LATENESS.saturating_add(self.extra))
    }

    /// True if firings of the rule are steps of another: then every completing time is told, not only the first.
    pub(super) fn chained(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// The watermark at which a bucket is closed.
    pub(super) fn due(&self, bucket: i64) -> Nanos {
        bucket.saturating_add(1).saturating_mul(self.rule.timespan).saturating_add(self.extra)
    }
}

/// Checks the rules and works out how to judge them.
pub(super) fn compile(rules: Vec<Rule>) -> Result<Vec<Plan>, String> {
    for rule in &rules {
        check(rule, &rules).map_err(|why| format!("correlation `{}`: {why}", rule.name))?;
    }
    let depths = depths(&rules)?;
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_key(|i| depths[*i]);
    let mut extra = vec![0; rules.len()];
    for i in order {
        let wait = |m: &Member| match m.source {
            Source::Correlation(inner) => {
                let rule = &rules[inner as usize];
                extra[inner as usize] + if rule.closes() { rule.timespan + LATENESS } else { 0 }
            }
            Source::Detector(_) => 0,
        };
        extra[i] = rules[i].members.iter().map(wait).max().unwrap_or(0);
    }
    let mut feeds: Vec<Vec<Feed>> = (0..rules.len()).map(|_| Vec::new()).collect();
    for (outer, rule) in rules.iter().enumerate() {
        for (member, m) in rule.members.iter().enumerate() {
            if let Source::Correlation(inner) = m.source {
                let feed = feed(&rules, inner as usize, outer, member)
                    .map_err(|why| format!("correlation `{}`: {why}", rule.name))?;
                feeds[inner as usize].push(feed);
            }
        }
    }
    let plans = rules.into_iter().zip(feeds).enumerate().map(|(i, (rule, feeds))| {
        let mut plan = Plan { judge: judge(&rule), feeds, extra: extra[i], keep: 0, depth: depths[i], rule };
        plan.keep = plan.patience().saturating_add(plan.rule.timespan - 1) / plan.rule.timespan + 1;
        plan
    });
    Ok(plans.collect())
}

fn check(rule: &Rule, rules: &[Rule]) -> Result<(), String> {
    if rule.members.is_empty() || rule.members.len() > MAX_MEMBERS {
        return Err(format!("it refers to {} rules; 1 to {MAX_MEMBERS} are possible", rule.members.len()));
    }
    if rule.timespan < SECOND || rule.timespan > MAX_TIMESPAN {
        return Err("its timespan must be between a second and 18 years".to_owned());
    }
    if let Kind::ValueCount { fields } = &rule.kind
        && fields.is_empty()
    {
        return Err("value_count needs `field` in its condition".to_owned());
    }
    let missing = |m: &Member| matches!(m.source, Source::Correlation(i) if i as usize >= rules.len());
    if rule.members.iter().any(missing) {
        return Err("it refers to a correlation that does not exist".to_owned());
    }
    let temporal = matches!(rule.kind, Kind::Temporal | Kind::TemporalOrdered);
    if !rule.grades.is_empty() && (temporal || !rule.closes()) {
        return Err("its `grade` needs a count that is final when it is judged".to_owned());
    }
    match &rule.condition {
        Condition::AllMembers if !temporal => Err("a count needs a condition such as `gte: 10`".to_owned()),
        Condition::Members(_) if rule.kind != Kind::Temporal => {
            Err("only `temporal` takes an expression of rules as its condition".to_owned())
        }
        Condition::Members(expr) if expr.highest().is_none_or(|m| usize::from(m) >= rule.members.len()) => {
            Err("its condition names a rule that is not among its rules".to_owned())
        }
        Condition::Count(ops) if ops.is_empty() => Err("its condition compares with nothing".to_owned()),
        Condition::Count(_) if rule.kind == Kind::TemporalOrdered => {
            Err("`temporal_ordered` fires when all its rules matched in order and takes no condition"
                .to_owned())
        }
        Condition::Count(ops) if ops.iter().any(|(_, limit)| *limit > MAX_COUNT) => Err(format!(
            "it compares with more than {MAX_COUNT}; use a shorter timespan and a smaller number"
        )),
        _ => Ok(()),
    }
}

/// How many correlations deep each rule is built.
fn depths(rules: &[Rule]) -> Result<Vec<u32>, String> {
    let mut depths = vec![0_u32; rules.len()];
    for _ in 0..=rules.len() {
        let mut changed = false;
        for (i, rule) in rules.iter().enumerate() {
            for m in &rule.members {
                if let Source::Correlation(inner) = m.source
                    && depths[i] <= depths[inner as usize]
                {
                    depths[i] = depths[inner as usize] + 1;
                    changed = true;
                }
            }
        }
        if !changed {
            return Ok(depths);
        }
    }
    let deepest = depths.iter().enumerate().max_by_key(|(_, depth)| **depth);
    let name = deepest.map_or("", |(i, _)| rules[i].name.as_str());
    Err(format!("correlation `{name}`: it refers to itself, by way of its rules"))
}

fn judge(rule: &Rule) -> Judge {
    let limits = || match &rule.condition {
        Condition::Count(ops) => ops.as_slice(),
        _ => &[],
    };
    match (&rule.kind, rule.closes()) {
        (Kind::TemporalOrdered, _) => Judge::Ordered,
        (Kind::Temporal, false) => Judge::Members,
        (Kind::Temporal, true) => Judge::CloseMembers,
        (_, false) => {
            let need = limits().iter().map(|(op, limit)| limit + u64::from(*op == Op::Gt)).max();
            Judge::Count(need.unwrap_or(1).max(1) as usize)
        }
        // One more than any limit decides every comparison.
        (_, true) => {
            let graded = rule.grades.iter().flat_map(|(ops, _)| ops);
            Judge::CloseCount(
                limits().iter().chain(graded).map(|(_, limit)| limit + 1).max().unwrap_or(1) as usize
            )
        }
    }
}

/// How the firing of `inner` becomes a step of `outer`.
fn feed(rules: &[Rule], inner: usize, outer: usize, member: usize) -> Result<Feed, String> {
    let (source, target) = (&rules[inner], &rules[outer]);
    let names = target.fields_for(member);
    let group_of = |name: &str| source.group_by.iter().position(|g| g == name);
    let (groups, counted) = (target.group_by.len(), target.counted().len());
    let exact = |range: std::ops::Range<usize>| {
        let find = |name: &&str| {
            group_of(name)
                .ok_or_else(|| format!("`{name}` is not among the group-by fields of `{}`", source.name))
        };
        names[range].iter().map(find).collect::<Result<Vec<_>, _>>()
    };
    let shown = source.shown();
    let find_shown = |name: &&str| match (group_of(name), shown.iter().position(|s| s == name)) {
        (Some(at), _) => Taken::FromGroup(at),
        (None, Some(at)) => Taken::FromShown(at),
        (None, None) => Taken::Nowhere,
    };
    Ok(Feed {
        rule: outer as u32,
        member: member as u8,
        group: exact(0..groups)?,
        counted: exact(groups..groups + counted)?,
        shown: names[groups + counted..].iter().map(find_shown).collect(),
    })
}
