//! The outputs of a live run: a courier each, started, changed and ended in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use detectors::engine::Engine;
use detectors::event::time::Nanos;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::delivery::courier::{Courier, Phase, Wish};
use crate::delivery::cursor::Cursor;
use crate::delivery::dead::Dead;
use crate::delivery::fs::Fs;
use crate::delivery::group::Groups;
use crate::delivery::log::{Damage, Reader, Tail};
use crate::delivery::spool::{Limits, Spool, Spools};
use crate::lane::{Order, Raised};
use crate::rules;
use crate::sink::{Output, Transport};
use crate::telemetry::Telemetry;

/// What all couriers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Where cursors lie.
    pub(crate) fs: Arc<dyn Fs>,
    /// The log's end.
    pub(crate) tail: Tail,
    /// Where alerts go that nobody will ever accept.
    pub(crate) dead: Arc<Dead>,
    /// Counters.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where alerts about the run go.
    pub(crate) raise: mpsc::Sender<Order>,
    /// The latest event time.
    pub(crate) latest: watch::Receiver<Nanos>,
    /// True if the log is still there at the next start.
    pub(crate) durable: bool,
    /// What may wait for an output.
    pub(crate) limits: Limits,
    /// Outputs that the log knows of from before this run.
    pub(crate) known: Arc<HashSet<String>>,
}

/// A courier at work.
#[derive(Debug)]
struct Running {
    output: Output,
    spool: Arc<Spool>,
    wishes: mpsc::Sender<Wish>,
    task: JoinHandle<()>,
}

/// All outputs.
#[derive(Debug)]
pub(crate) struct Outputs {
    shared: Shared,
    spools: Spools,
    phase: watch::Sender<Phase>,
    running: Vec<Running>,
}

impl Outputs {
    /// No outputs yet.
    pub(crate) fn new(shared: Shared, spools: Spools) -> Outputs {
        Outputs { shared, spools, phase: watch::Sender::new(Phase::Running), running: Vec::new() }
    }

    /// Builds the transports of outputs, so that what is wrong with one is known before anything is changed.
    ///
    /// # Errors
    /// One of them cannot be: which, and why.
    pub(crate) fn build(outputs: &[Output]) -> Result<Vec<(Output, Transport)>> {
        outputs.iter().map(|output| Ok((output.clone(), Transport::new(output)?))).collect()
    }

    /// Puts these outputs in the place of those that run. Those that are the same go on undisturbed; one that is changed goes
    /// on from where it was; a new one begins with what comes from now on.
    /// What an output has not done with when it is taken away is dropped, and counted.
    pub(crate) async fn replace(&mut self, wanted: Vec<(Output, Transport)>) {
        let mut old: HashMap<String, Running> =
            self.running.drain(..).map(|running| (running.output.name(), running)).collect();
        for (output, transport) in wanted {
            match old.remove(&output.name()) {
                Some(same) if same.output == output => self.running.push(same),
                changed => {
                    if let Some(changed) = changed {
                        retire(changed).await;
                    }
                    let running = self.start(output, transport);
                    self.running.push(running);
                }
            }
        }
        self.spools.replace(self.running.iter().map(|running| Arc::clone(&running.spool)).collect());
        let names = self.running.iter().map(|running| running.output.name()).collect();
        // A lane that is too busy to listen is told at the next start.
        let _ = self.shared.raise.try_send(Order::Outputs(names));
        for (name, gone) in old {
            let spool = Arc::clone(&gone.spool);
            retire(gone).await;
            let left = spool.waiting().1;
            if left > 0 {
                self.shared.telemetry.dropped(&name, "output_removed", left);
            }
            let removed = Cursor::remove(&*self.shared.fs, &name)
                .and_then(|()| Groups::remove(&*self.shared.fs, &name));
            if let Err(error) = removed {
                self.shared.telemetry.durability_error("a cursor", &error);
            }
        }
    }

    /// Starts couriers anew that have died, from where they were.
    pub(crate) fn revive(&mut self) {
        for at in 0..self.running.len() {
            if !self.running[at].task.is_finished() {
                continue;
            }
            let output = self.running[at].output.clone();
            tracing::error!(output = %output.name(), "the output died, which is a bug of Lapwing; it is started anew");
            match Transport::new(&output) {
                Ok(transport) => self.running[at] = self.start(output, transport),
                Err(error) => {
                    tracing::error!(output = %output.name(), "the output cannot be started: {error:#}");
                }
            }
        }
        self.spools.replace(self.running.iter().map(|running| Arc::clone(&running.spool)).collect());
    }

    fn start(&self, output: Output, transport: Transport) -> Running {
        let name = output.name();
        let shared = self.shared.clone();
        let (cursor, damage) =
            Cursor::open(Arc::clone(&shared.fs), &name, &shared.tail, shared.known.contains(&name));
        if let Some(damage) = damage {
            // The lane may not be there yet; the channel holds what the first outputs say.
            let _ = shared.raise.try_send(Order::Raise(damaged(&damage)));
        }
        let common = output.common();
        let span = common.repeat_after.map(|span| span.0.as_nanos() as Nanos);
        let groups = span.map(|span| Groups::open(Arc::clone(&shared.fs), &name, span, shared.tail.id()));
        let place = groups.as_ref().map_or(cursor.place(), |groups| groups.place().max(cursor.place()));
        let reader = Reader::new(shared.tail.clone(), place);
        let (bytes, alerts) = waiting(Reader::new(shared.tail.clone(), place));
        let spool = Spool::new(&name, shared.limits, bytes, alerts, place.consumed());
        self.spools.add(Arc::clone(&spool));
        shared.telemetry.output_opened(&name, shared.limits.max_bytes.0);
        let (wishes, heard) = mpsc::channel(4);
        let courier = Courier {
            common,
            name,
            transport,
            reader,
            cursor,
            groups,
            spool: Arc::clone(&spool),
            spools: self.spools.clone(),
            dead: shared.dead,
            telemetry: shared.telemetry,
            raise: shared.raise,
            latest: shared.latest,
            wishes: heard,
            phase: self.phase.subscribe(),
            durable: shared.durable,
        };
        Running { output, spool, wishes, task: tokio::spawn(courier.run()) }
    }

    /// Asks all outputs to open their files anew.
    pub(crate) fn reopen(&self) {
        for running in &self.running {
            // One that has not yet come to the last wish will open its files all the same.
            let _ = running.wishes.try_send(Wish::Reopen);
        }
    }

    /// Waits until no output has a receiver any more.
    pub(crate) async fn gone(&self) {
        self.spools.gone().await;
    }

    /// Lets the outputs deliver what is left, until then at the latest. Returns how many alerts remain undelivered, but for
    /// those of outputs whose receiver is gone for good: who went does not want them.
    pub(crate) async fn drain(self, until: Instant) -> u64 {
        self.phase.send_replace(Phase::Draining(until));
        let mut left = 0;
        for running in self.running {
            // A courier that panicked has left what it had in the log.
            let _ = running.task.await;
            if !running.spool.is_gone() {
                left += running.spool.waiting().1;
            }
        }
        left
    }
}

/// Warns of what outputs say of detectors in vain.
pub(crate) fn warn(outputs: &[Output], engine: &Engine) {
    for output in outputs {
        let common = output.common();
        for (key, globs) in [("detectors", &common.detectors), ("skip_detectors", &common.skip_detectors)] {
            for problem in globs.iter().filter_map(|glob| rules::unmatched(glob, engine)) {
                tracing::warn!("outputs.{}.{key}: {problem}", output.name());
            }
        }
    }
}

/// What is said of own files that could not be read.
pub(crate) fn damaged(damage: &Damage) -> Raised {
    let lost = damage.lost.map_or_else(String::new, |lost| format!("; {lost} records are lost"));
    Raised {
        detector: "integrity/state-damaged",
        of: "state_dir".to_owned(),
        message: format!("{}: {}{lost}", damage.place, damage.what),
        identity: format!("{}\0{}", damage.place, damage.what),
    }
}

/// Bytes and number of the alerts that are to be read.
fn waiting(mut reader: Reader) -> (u64, u64) {
    let (mut bytes, mut alerts) = (0, 0);
    // What cannot be read now is not counted; the courier will say so.
    while let Ok(Some(chunk)) = reader.next() {
        bytes += chunk.entries.iter().map(|entry| entry.json.len() as u64).sum::<u64>();
        alerts += chunk.entries.len() as u64;
    }
    (bytes, alerts)
}

/// How long a courier may take to end before it is ended.
const RETIREMENT: Duration = Duration::from_secs(2);

/// Ends a courier and waits for it, though not for ever: one whose pipe is stuck is ended where it stands.
async fn retire(mut running: Running) {
    let _ = running.wishes.try_send(Wish::Retire);
    if tokio::time::timeout(RETIREMENT, &mut running.task).await.is_err() {
        running.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::delivery::fs::Memory;
    use crate::delivery::log::{Log, Options};
    use crate::delivery::{Entry, Record};
    use crate::sink;

    /// How long an alert has waited, as the metrics tell, whose event is years old and that came when an output, which cannot be
    /// written to, was there already or was not yet.
    async fn waited(there: bool) -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let yaml =
            format!("{{type: file, name: out, path: {}}}", folder.path().join("alerts.jsonl").display());
        let output: Output = yaml_serde::from_str(&yaml).unwrap();
        let wanted = Outputs::build(&[output]).unwrap();
        drop(folder);

        let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
        let (mut log, _) = Log::open(Arc::clone(&fs), Options::in_memory(Vec::new())).unwrap();
        let spools = Spools::default();
        let append = |log: &mut Log| {
            let mut alert = sink::tests::alert();
            alert.time = "2020-01-01T00:00:00Z".to_owned();
            let alerts = vec![Entry { uuid: alert.uuid, json: sink::native(&alert) }];
            log.append(&Record { alerts: alerts.clone(), ..Record::default() }).unwrap();
            spools.grown(&alerts);
        };
        let (raise, _heard) = mpsc::channel(8);
        let (_latest, latest) = watch::channel(0);
        let telemetry = Telemetry::new();
        let shared = Shared {
            tail: log.tail(),
            dead: Arc::new(Dead::open(Arc::clone(&fs), 1 << 20)),
            telemetry: Arc::clone(&telemetry),
            raise,
            latest,
            durable: false,
            limits: Limits::default(),
            known: Arc::new(HashSet::from(["out".to_owned()])),
            fs,
        };
        let mut outputs = Outputs::new(shared, spools.clone());
        if !there {
            append(&mut log);
        }
        outputs.replace(wanted).await;
        if there {
            // All run on one thread: the courier finds that nothing is there.
            tokio::task::yield_now().await;
            append(&mut log);
        }
        let value = |name: &str| {
            let text = telemetry.encode(SystemTime::now());
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.rsplit_once(' ').map_or(0.0, |(_, value)| value.parse().unwrap())
        };
        while value("lapwing_output_failed_total{output=\"out\"") == 0.0 {
            tokio::task::yield_now().await;
        }
        value("lapwing_spool_oldest_age_seconds{output=\"out\"")
    }

    #[tokio::test]
    async fn an_alert_of_an_old_event_has_not_waited_since_then() {
        let age = waited(true).await;
        assert!((0.0..300.0).contains(&age), "{age}");
    }

    /// How long it has been there is not known then.
    #[tokio::test]
    async fn an_alert_that_waited_at_the_start_has_waited_since_its_event_at_the_most() {
        let age = waited(false).await;
        assert!(age > 86_400.0 * 365.0, "{age}");
    }
}
