//! The compiled detectors, shared by all threads, and what judging yields.

use crate::alert::Alert;
use crate::correlate::{self, Correlator, StepBuilder};
use crate::event::time::Nanos;
use crate::event::{Event, Stream};
use crate::facts::{Needs, Parts};
use crate::index::{self, Decided, Mask};
use crate::integrity;
use crate::level::Level;
use crate::literals::Literals;
use crate::program::{Expr, Field, Memo, Tests};
use crate::settings::Settings;
use crate::sigma::{About, DetectorRule};
use crate::value::Tri;
pub use crate::worker::Worker;

/// The compiled detectors. Immutable and shared by all workers.
pub struct Engine {
    /// The operator's settings.
    pub settings: Settings,
    pub(crate) tests: Tests,
    pub(crate) programs: Vec<Program>,
    pub(crate) correlations: Vec<correlate::Rule>,
    detectors: Vec<Detector>,
    /// Which of [`integrity::CHECKS`] alert.
    pub(crate) integrity: [bool; integrity::CHECKS.len()],
    range: (Option<Nanos>, Option<Nanos>),
    /// Programs by stream, and those whose conditions name `stage` and so see every record.
    pub(crate) audit_programs: Mask,
    pub(crate) falco_programs: Mask,
    pub(crate) stage_programs: Mask,
    /// The literals without which programs that no key routes cannot match.
    pub(crate) literals: Option<Literals>,
}

/// A detector of single events, ready to run.
pub(crate) struct Program {
    pub(crate) rule: DetectorRule,
    /// The level that the operator set.
    pub(crate) level: Option<Level>,
    /// Matches of which one holds are no alerts and no steps.
    pub(crate) exceptions: Vec<Exempt>,
    /// Correlations that wait for it.
    pub(crate) feeds: Vec<Feed>,
    /// False if it only feeds correlations.
    pub(crate) alerts: bool,
    /// The audit level below which it cannot be told.
    pub(crate) needs: Needs,
}

/// Matches that are passed over.
#[derive(Clone)]
pub(crate) struct Exempt {
    /// What must hold.
    pub(crate) when: Expr,
    /// And the event must be older than this. One without a time is not.
    pub(crate) until: Option<Nanos>,
}

impl Exempt {
    /// True if it can apply to an event of this time.
    pub(crate) fn covers(&self, time: Option<Nanos>) -> bool {
        self.until.is_none_or(|until| time.is_some_and(|time| time < until))
    }
}

/// What a correlation takes from a match.
pub(crate) struct Feed {
    pub(crate) builder: StepBuilder,
    pub(crate) fields: Vec<Field>,
    /// Matches of which one holds are no steps.
    pub(crate) exceptions: Vec<Exempt>,
}

/// What a listing says of a detector.
#[derive(Debug, Clone)]
pub struct Detector {
    /// `family/name`.
    pub name: String,
    /// One line.
    pub title: String,
    /// The level, after overrides.
    pub level: Level,
    /// Sigma tags.
    pub tags: Vec<String>,
    /// `builtin` or the file it was read from.
    pub origin: String,
    /// True if it counts matches of other detectors.
    pub correlation: bool,
    /// True if it never alerts by itself.
    pub hidden: bool,
    /// Lists that it needs and the config lacks: it is silent.
    pub silent: Vec<String>,
}

/// What an engine is made of: the work of [`crate::rules`].
pub(crate) struct Assembly {
    pub(crate) settings: Settings,
    pub(crate) tests: Tests,
    pub(crate) programs: Vec<Program>,
    pub(crate) correlations: Vec<correlate::Rule>,
    pub(crate) detectors: Vec<Detector>,
    /// Which of [`integrity::CHECKS`] alert.
    pub(crate) integrity: [bool; integrity::CHECKS.len()],
}

/// Where the first byte of a piece of input lies.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'i> {
    /// The input's name.
    pub input: &'i str,
    /// Byte offset in the (decompressed) input.
    pub offset: u64,
}

/// How much of a record the bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// It was cut off, or was ended by the start of another record: judged on what is there.
    Fragment,
    /// The bytes are its head and, from `tail` on, its tail; the record's true length is `length`.
    Oversize {
        /// Where in the bytes the tail begins.
        tail: usize,
        /// Length of the record in the input.
        length: u64,
    },
}

/// A correlation and its logic. Steps of one cannot be taken by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTag {
    /// `family/name`.
    pub name: String,
    /// Hash of its logic and that of its members, of the form of steps, and of the fields that they bring along.
    pub logic: [u8; 32],
}

/// An alert and what the shell needs to sort and filter it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Event time.
    pub time: Nanos,
    /// Index into [`Engine::detectors`].
    pub detector: u32,
    /// The alert.
    pub alert: Alert,
}

/// A match that a correlation waits for, packed so that it can be sorted and spilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Event time.
    pub time: Nanos,
    /// The packed step.
    pub bytes: Vec<u8>,
}

/// What judging yields.
#[derive(Debug, Clone)]
pub enum Emitted {
    /// An alert.
    Alert(Box<Found>),
    /// A step of a correlation.
    Step(Step),
}

impl Engine {
    pub(crate) fn new(parts: Assembly) -> Engine {
        let count = parts.programs.len();
        let of = |wanted: &dyn Fn(&DetectorRule) -> bool| {
            let mut mask = index::empty(count);
            for (index, program) in parts.programs.iter().enumerate() {
                if wanted(&program.rule) && program.rule.silent.is_empty() {
                    index::set(&mut mask, index);
                }
            }
            mask
        };
        Engine {
            literals: Literals::new(&parts.tests, &parts.programs),
            audit_programs: of(&|rule| rule.stream == Stream::Audit),
            falco_programs: of(&|rule| rule.stream == Stream::Falco),
            stage_programs: of(&|rule| {
                rule.stream == Stream::Audit && names_stage(&parts.tests, &rule.condition)
            }),
            settings: parts.settings,
            tests: parts.tests,
            programs: parts.programs,
            correlations: parts.correlations,
            detectors: parts.detectors,
            integrity: parts.integrity,
            range: (None, None),
        }
    }

    /// Judges only events in `[since, until)`.
    #[must_use]
    pub fn between(mut self, since: Option<Nanos>, until: Option<Nanos>) -> Engine {
        self.range = (since, until);
        self
    }

    /// True if an event of this time is to be judged. One without a time is judged always.
    pub(crate) fn in_range(&self, time: Option<Nanos>) -> bool {
        let Some(time) = time else { return true };
        self.range.0.is_none_or(|since| time >= since) && self.range.1.is_none_or(|until| time < until)
    }

    /// All detectors; [`Found::detector`] counts among them.
    pub fn detectors(&self) -> &[Detector] {
        &self.detectors
    }

    /// A judge for one thread.
    pub fn worker(&self) -> Worker<'_> {
        Worker::new(self)
    }

    /// What turns steps into alerts, in at most `budget` bytes.
    pub fn correlator(&self, budget: usize) -> Correlator {
        Correlator::new(self.correlations.clone(), budget)
            .expect("the rules were checked when the engine was made")
            .with_cluster(self.settings.cluster.clone())
    }

    /// Puts its titles, levels and messages in the place of those of a correlator of the same rules. False, and nothing has
    /// changed, if their logic is another, or the fields that they show.
    pub fn adapt(&self, correlator: &mut Correlator) -> bool {
        correlator.adapt(self.correlations.clone())
    }

    /// What tells the correlations of this engine from those of another: the rule that a step begins with counts among them.
    pub fn correlations(&self) -> impl ExactSizeIterator<Item = RuleTag> {
        self.correlations.iter().map(|rule| RuleTag { name: rule.name.clone(), logic: rule.step_hash() })
    }

    /// The names of the correlations whose conditions can become false again: these wait for the time by all events, so one
    /// process must see all of them ([`correlate::Rule::closes`]).
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.correlations.iter().filter(|rule| rule.closes()).map(|rule| rule.name.as_str())
    }

    /// For each of [`Engine::correlations`], for how long its steps are needed once the clock of the events has passed them.
    pub fn look_back(&self) -> Vec<Nanos> {
        correlate::look_back(&self.correlations)
    }

    /// The index of one of [`integrity::CHECKS`]: they stand last.
    pub(crate) fn integrity_detector(&self, check: usize) -> u32 {
        (self.detectors.len() - integrity::CHECKS.len() + check) as u32
    }

    /// How many programs there are.
    pub(crate) fn programs(&self) -> usize {
        self.programs.len()
    }

    /// The audit level that a condition needs: that of the facts and bodies that it asks for.
    pub(crate) fn needs(tests: &Tests, condition: &Expr) -> Needs {
        let mut needs = Needs::Metadata;
        tests.visit(condition, &mut |test| {
            let of = match test.field {
                Field::Fact(id) => crate::facts::get(id).needs,
                _ if test.text.to_ascii_lowercase().starts_with("requestobject") => Needs::Request,
                _ if test.text.to_ascii_lowercase().starts_with("responseobject") => Needs::RequestResponse,
                _ => Needs::Metadata,
            };
            needs = needs.max(of);
        });
        needs
    }

    /// What `parts` of the event decide: of the programs `among` some, and of the tests that these ask on the way.
    pub(crate) fn decided(&self, event: &Event<'_>, parts: Parts, among: &Mask) -> Decided {
        event.lens.set(parts);
        let mut memo = Memo::default();
        let mut mask = index::full(self.programs.len());
        for index in index::members(among) {
            if self.tests.eval(&self.programs[index].rule.condition, event, &mut memo) == Tri::False {
                index::clear(&mut mask, index);
            }
        }
        event.lens.set(Parts::ALL);
        Decided { mask, answers: memo.answers().collect() }
    }
}

/// True if a condition names `stage`: it is put to the records of all stages.
pub(crate) fn names_stage(tests: &Tests, condition: &Expr) -> bool {
    let mut found = false;
    tests.visit(condition, &mut |test| found |= tests.name(test.field).eq_ignore_ascii_case("stage"));
    found
}

impl Detector {
    /// What a listing says of a rule.
    pub(crate) fn of(
        about: &About,
        level: Option<Level>,
        correlation: bool,
        silent: Vec<String>,
    ) -> Detector {
        Detector {
            name: about.name.clone(),
            title: about.title.clone(),
            level: level.unwrap_or(about.level),
            tags: about.tags.clone(),
            origin: about.source.to_string(),
            correlation,
            hidden: about.hidden,
            silent,
        }
    }
}
