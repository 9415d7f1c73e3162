//! `lapwing run`: joins sources, lane, couriers and server, and ends them in order.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use sha2::Digest as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::cli;
use crate::delivery::OF_THE_RUN;
use crate::delivery::dead::Dead;
use crate::delivery::fs::{Disk, Fs, Memory};
use crate::delivery::log::{Damage, Log, Options, RuleTag, State};
use crate::delivery::spool::{Limits, Spools};
use crate::exit::{Exit, Failure};
use crate::lane::{Inputs, Judging, Lane, Order, Parts, Raised, knows_output, rule_tags};
use crate::live::{Input, Live};
use crate::matches::{self, Role};
use crate::outputs::{self, Outputs, Shared};
use crate::recent::Recent;
use crate::rules::Wanted;
use crate::server::{self, Heartbeat, Readiness};
use crate::sink::{Output, Transport};
use crate::source::outlet::Stop;
use crate::source::{Engines, Room, file, http, kafka, stdin};
use crate::telemetry::Telemetry;
use crate::text;
use crate::units::Size;
use crate::watch::Watch;

/// Bytes of input that may wait for the lane.
const ROOM: usize = 16 << 20;
/// Bytes of HTTP bodies that may be on their way.
const INTAKE: usize = 128 << 20;
/// Deliveries that may wait for the lane.
const QUEUE: usize = 1024;
/// What is kept in memory for receivers that are down when there is no state directory.
const STATELESS: u64 = 128 << 20;
/// What may wait for one receiver then: well below it, since windows take room too.
const STATELESS_SPOOL: u64 = 32 << 20;
/// How large the file of dead letters may become.
const DEAD_LETTERS: u64 = 256 << 20;

/// Why a reload is tried again.
const BUSY: &str = "the run is too busy to take it: the spool of an output is full, or the disk refuses";
/// How long the lane may take to end when there is no time left.
const LAST: Duration = Duration::from_secs(2);
/// How long a reload waits for the lane. Signals wait as long.
const RELOAD: Duration = Duration::from_secs(5);
/// How often the files of the configuration are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until it is told to stop, standard input has ended, or whoever read the alerts has gone.
pub(crate) fn run(typed: &cli::Run) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")
        .map_err(Failure::usage)?;
    let signals = runtime.block_on(async { Signals::caught() })?;
    let live = Live::read(typed).map_err(Failure::usage)?;
    let judging = judging(typed)?;
    live.check_detectors(&judging.engine).map_err(Failure::usage)?;
    let outputs = Outputs::build(&live.outputs).map_err(Failure::usage)?;
    outputs::warn(&live.outputs, &judging.engine);
    if typed.dry_run {
        print(&live, &judging);
        return Ok(Exit::Fine);
    }
    let ended = runtime.block_on(async {
        Run::start(typed, live, judging, outputs).await?.until_the_end(typed, signals).await
    });
    // Threads that wait for the world need not be waited for.
    runtime.shutdown_background();
    ended
}

/// The detectors that the flags and the configuration name.
fn judging(typed: &cli::Run) -> Result<Judging, Failure> {
    let rules = cli::Rules {
        detectors: typed.detectors.clone(),
        config: typed.config.clone(),
        cluster: typed.cluster.clone(),
    };
    let wanted = Wanted::read(&rules)?;
    let min_level = wanted.min_level();
    Ok(Judging { engine: Arc::new(wanted.engine()?), min_level })
}

/// A live run and what it takes to end it in order.
struct Run {
    live: Live,
    durable: bool,
    /// Tells sources that poll to stop, and those that await by when.
    stop: Stop,
    end: watch::Sender<Option<Instant>>,
    /// Tells the lane not to wait any more for what cannot be made durable.
    give_up: watch::Sender<bool>,
    orders: mpsc::Sender<Order>,
    lane: oneshot::Receiver<std::io::Result<Log>>,
    /// Goes last, so that probes see how the run ends.
    closed: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    outputs: Outputs,
    intakes: Vec<http::Listening>,
    members: Vec<std::thread::JoinHandle<()>>,
    reloads: mpsc::Receiver<server::Reload>,
    readiness: Readiness,
    telemetry: Arc<Telemetry>,
}

/// What is kept on disk, or in memory if it must be.
struct Kept {
    fs: Arc<dyn Fs>,
    durable: bool,
    limits: Limits,
    log: Log,
    state: State,
    dead: Arc<Dead>,
}

impl Kept {
    /// Opens what the last run left, or begins anew.
    fn open(typed: &cli::Run, live: &Live, rules: Vec<RuleTag>) -> Result<Kept, Failure> {
        let (fs, durable) = Kept::place(typed, live)?;
        let options = if durable { Options::durable(rules) } else { Options::in_memory(rules) };
        let (log, state) = Log::open(Arc::clone(&fs), options)
            .map_err(|error| Failure::usage(anyhow!("{}: {error}", live.state_dir.display())))?;
        let mut limits = live.spool;
        if !durable {
            limits.max_bytes = limits.max_bytes.min(Size(STATELESS_SPOOL));
        }
        let dead = Arc::new(Dead::open(Arc::clone(&fs), DEAD_LETTERS));
        let mut kept = Kept { fs, durable, limits, log, state, dead };
        kept.go_back(live);
        Ok(kept)
    }

    /// The state directory. One that cannot be written is no reason not to watch: the run goes on without, and says so.
    fn place(typed: &cli::Run, live: &Live) -> Result<(Arc<dyn Fs>, bool), Failure> {
        let memory = || -> (Arc<dyn Fs>, bool) { (Arc::new(Memory::new(STATELESS)), false) };
        if typed.stateless {
            return Ok(memory());
        }
        match Disk::open(&live.state_dir) {
            Ok(disk) => Ok((Arc::new(disk), true)),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(Failure::usage(anyhow!(
                "{} is used by another process: give this one a `state_dir` of its own, or end the other",
                live.state_dir.display()
            ))),
            Err(error) => {
                tracing::warn!(
                    state_dir = %live.state_dir.display(), %error,
                    "nothing is kept over a restart: the state directory cannot be used; name another by --state-dir or \
                     `state_dir`, or say --stateless"
                );
                Ok(memory())
            }
        }
    }

    /// If more is lost than positions tell, the inputs go back as far as they can.
    fn go_back(&mut self, live: &Live) {
        if self.state.again {
            for input in &live.inputs {
                file::rewind(self.state.positions.entry(input.name()).or_default());
            }
            self.log.go_back(&self.state.positions);
        }
    }

    /// Those of the outputs that the log knows.
    fn known(&self, outputs: &[(Output, Transport)]) -> Arc<HashSet<String>> {
        let names = outputs.iter().map(|(output, _)| output.name());
        Arc::new(names.filter(|name| knows_output(&self.state.positions, name)).collect())
    }
}

impl Run {
    async fn start(
        typed: &cli::Run,
        live: Live,
        judging: Judging,
        outputs: Vec<(Output, Transport)>,
    ) -> Result<Run, Failure> {
        let (telemetry, heartbeat, readiness) = (Telemetry::new(), Heartbeat::new(), Readiness::new());
        let ((closed, closing), (reload, reloads)) = (watch::channel(false), mpsc::channel(1));
        let (counters, pulse) = (Arc::clone(&telemetry), heartbeat.clone());
        let server = server::start(&live.server, counters, readiness.clone(), pulse, reload, closing).await;
        let server = server.map_err(Failure::usage)?;
        let kept = Kept::open(typed, &live, rule_tags(&judging.engine))?;
        let (orders, heard) = mpsc::channel(256);
        let (spools, (latest, time)) = (Spools::default(), watch::channel(0));
        let shared = Shared {
            fs: Arc::clone(&kept.fs),
            tail: kept.log.tail(),
            dead: Arc::clone(&kept.dead),
            telemetry: Arc::clone(&telemetry),
            raise: orders.clone(),
            latest: time,
            durable: kept.durable,
            limits: kept.limits,
            known: kept.known(&outputs),
        };
        let mut all = Outputs::new(shared, spools.clone());
        all.replace(outputs).await;
        say(&live, &judging, &kept, server.address);
        let Kept { log, state: State { positions, recent, damage, .. }, dead, durable, .. } = kept;
        let ((sender, deliveries), (give_up, giving_up)) = (mpsc::channel(QUEUE), watch::channel(false));
        let (engines, in_force) = watch::channel(Arc::clone(&judging.engine));
        let purpose = purpose(live.role, in_force);
        let parts = Parts {
            role: live.role,
            matches: live.way_of_matches().map_err(Failure::usage)?,
            deliveries,
            orders: heard,
            engines,
            stop: giving_up,
            log,
            durable,
            dead,
            spools,
            recent: recent.into_iter().collect::<Recent>(),
            latest,
            telemetry: Arc::clone(&telemetry),
            heartbeat,
            readiness: readiness.clone(),
        };
        let lane = start_lane(Lane::new(parts, Inputs::of(&live, &positions)), judging);
        let (end, ending) = watch::channel(None);
        let mut run = Run {
            live,
            durable,
            stop: Stop::new().context("no descriptor is left").map_err(Failure::usage)?,
            end,
            give_up,
            orders,
            lane,
            closed,
            server: server.task,
            outputs: all,
            intakes: Vec::new(),
            members: Vec::new(),
            reloads,
            readiness,
            telemetry,
        };
        run.tell_of(&damage);
        run.open_inputs(&positions, &purpose, sender, ending).await.map(|()| run)
    }

    /// Says what of our own files could not be read.
    fn tell_of(&self, damage: &[Damage]) {
        for damaged in damage {
            tracing::error!(file = %damaged.place, lost = ?damaged.lost, "own state is damaged: {}", damaged.what);
            self.raise(outputs::damaged(damaged));
        }
    }

    fn raise(&self, raised: Raised) {
        // A lane that is too busy to listen has other troubles, and signals must not wait for it.
        let _ = self.orders.try_send(Order::Raise(raised));
    }

    /// Opens the inputs, and says so. When the last of them ends, so does the lane.
    async fn open_inputs(
        &mut self,
        positions: &std::collections::BTreeMap<String, String>,
        purpose: &kafka::Purpose,
        sender: crate::source::Sender,
        ending: watch::Receiver<Option<Instant>>,
    ) -> Result<(), Failure> {
        let (room, intake) = (Room::new(ROOM), Room::new(INTAKE));
        for input in &self.live.inputs {
            let restored = positions.get(&input.name()).map(String::as_str);
            self.telemetry.input_opened(&input.name());
            let (sender, telemetry) = (sender.clone(), Arc::clone(&self.telemetry));
            match input {
                Input::File(config) => {
                    file::start(config, restored, sender, room.clone(), self.stop.clone(), telemetry)
                        .map_err(Failure::usage)?;
                }
                Input::Stdin(config) => {
                    stdin::start(config, sender, room.clone(), self.stop.clone(), telemetry)
                        .map_err(Failure::usage)?;
                }
                Input::Kafka(config) => {
                    let (stop, readiness) = (self.stop.clone(), self.readiness.clone());
                    let (purpose, room) = (purpose.clone(), room.clone());
                    let member = kafka::start(config, purpose, sender, room, stop, telemetry, readiness);
                    self.members.push(member.map_err(Failure::usage)?);
                }
                Input::Http(config) => {
                    let listening =
                        http::start(config.clone(), sender, intake.clone(), ending.clone(), telemetry).await;
                    let listening = listening.map_err(Failure::usage)?;
                    eprintln!("listening  {} for {}", listening.url(), listening.input());
                    self.intakes.push(listening);
                }
            }
        }
        self.readiness.set(Readiness::INPUTS, true);
        Ok(())
    }

    /// Waits for signals, changed files and the end of the inputs.
    async fn until_the_end(mut self, typed: &cli::Run, signals: Signals) -> Result<Exit, Failure> {
        let Signals { mut ending, mut hup } = signals;
        let mut watch = Watch::new(watched(typed));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ended, mut due) = (None, false);
        self.telemetry.configured(&digest(typed));
        loop {
            tokio::select! {
                log = &mut self.lane => {
                    ended = Some(log);
                    break;
                }
                _ = &mut ending => break,
                () = self.outputs.gone() => {
                    tracing::info!("the reader of standard output has gone, and there is no other output: the run ends");
                    break;
                }
                _ = hup.recv() => {
                    self.outputs.reopen();
                    due = true;
                }
                Some(reply) = self.reloads.recv() => {
                    watch = Watch::new(watched(typed));
                    let result = self.reload(typed).await;
                    // Whoever asked may have gone.
                    let _ = reply.send(result);
                }
                _ = look.tick() => {
                    self.look_at_certificates();
                    self.outputs.revive();
                    due |= watch.changed();
                }
            }
            if due {
                // What is read now, good or bad, is not read again before it changes.
                watch = Watch::new(watched(typed));
                let result = self.reload(typed).await;
                // A lane that is busy is asked again at the next look.
                due = result.is_err_and(|error| error.contains(BUSY));
            }
        }
        self.shut_down(ended).await
    }

    /// Ends in the order of the flow: sources, lane, outputs.
    async fn shut_down(
        mut self,
        ended: Option<Result<std::io::Result<Log>, oneshot::error::RecvError>>,
    ) -> Result<Exit, Failure> {
        self.readiness.set(Readiness::STOPPING, false);
        let until = Instant::now() + self.live.shutdown_grace.0;
        self.stop.say();
        self.end.send_replace(Some(until));
        let ended = match ended {
            Some(ended) => ended,
            None => {
                match tokio::time::timeout_at(until, &mut self.lane).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        self.give_up.send_replace(true);
                        let lane = tokio::time::timeout(LAST, &mut self.lane).await;
                        lane.map_err(|_| Failure::input(anyhow!("the lane does not end; what is not acknowledged is read again at the next start")))?
                    }
                }
            }
        };
        let log = ended
            .map_err(|_| {
                Failure::input(anyhow!(
                    "the lane died: this is a bug of Lapwing; nothing unread is acknowledged"
                ))
            })?
            .map_err(|error| Failure::input(anyhow!("the log cannot be read: {error}")))?;
        let leaving = tokio::task::spawn_blocking(|| {
            for member in self.members {
                // That it died is told by the hook for panics, and what it did not commit comes again.
                let _ = member.join();
            }
        });
        if tokio::time::timeout_at(until, leaving).await.is_err() {
            tracing::warn!(
                "brokers do not answer: what was read since the last commits is read again at the next start"
            );
        }
        for intake in self.intakes {
            // It has handed over everything, or the lane would not have ended; what remains is to answer.
            let _ = tokio::time::timeout_at(until, intake.task).await;
        }
        let left = self.outputs.drain(until.max(Instant::now() + Duration::from_secs(1))).await;
        drop(log);
        self.closed.send_replace(true);
        let _ = self.server.await; // nothing of it is needed any more
        Ok(leave(left, self.durable, &self.live))
    }

    fn look_at_certificates(&self) {
        for intake in &self.intakes {
            if let Some(expires) = intake.certificate_expires() {
                self.telemetry.certificate(intake.input(), expires);
            }
        }
    }

    /// Reads the configuration anew and puts it in force; on any error the old one stays in force.
    async fn reload(&mut self, typed: &cli::Run) -> Result<String, String> {
        let result = self.try_reload(typed).await.map_err(|error| format!("{error:#}"));
        match &result {
            Ok(what) => {
                self.telemetry.reloaded(Ok(what));
                self.telemetry.configured(&digest(typed));
            }
            Err(error) => {
                self.telemetry.reloaded(Err(error));
                self.raise(Raised {
                    detector: "integrity/reload-failed",
                    of: "configuration".to_owned(),
                    message: "a new configuration was refused; the old one stays in force".to_owned(),
                    identity: format!("{error}\0{}", text::now()),
                });
            }
        }
        result
    }

    async fn try_reload(&mut self, typed: &cli::Run) -> Result<String> {
        for intake in &self.intakes {
            if let Err(error) = intake.reload() {
                tracing::warn!("{error:#}");
            }
        }
        let live = Live::read(typed)?;
        anyhow::ensure!(
            live.fixed() == self.live.fixed(),
            "`inputs`, `server`, `spool`, `state_dir`, `role` and `matches` are fixed at the start: restart Lapwing to change them"
        );
        let built = Outputs::build(&live.outputs)?;
        let typed = typed.clone();
        // Compiling rules takes a while, and the outputs must go on meanwhile.
        let judging =
            tokio::task::spawn_blocking(move || judging(&typed)).await?.map_err(|failure| failure.error)?;
        live.check_detectors(&judging.engine)?;
        outputs::warn(&live.outputs, &judging.engine);
        let detectors = judging.engine.detectors().len();
        let (reply, done) = oneshot::channel();
        self.orders.try_send(Order::Reload(Box::new(judging), reply)).ok().context(BUSY)?;
        let done = tokio::time::timeout(RELOAD, done).await.context(BUSY)?;
        done.context("the run is ending")??;
        self.outputs.replace(built).await;
        self.live = live;
        Ok(format!("{detectors} detectors, {} outputs", self.live.outputs.len()))
    }
}

/// Says what becomes of alerts that no output took.
fn leave(alerts: u64, durable: bool, live: &Live) -> Exit {
    if alerts == 0 {
        return Exit::Fine;
    }
    if durable {
        tracing::warn!(alerts, "alerts wait in the state directory for the next start");
        return Exit::Fine;
    }
    match lost(&live.inputs) {
        None => {
            // Who only correlates fills its windows from the topic, and who only detects counts nothing.
            let more = if live.role == Role::All { ", and correlations count anew from there" } else { "" };
            tracing::warn!(
                alerts,
                "no output took the last alerts, and nothing is kept without a state directory: what they were found in is read \
                 again from its topics at the next start{more}"
            );
            Exit::Fine
        }
        Some(lost) => {
            tracing::error!(
                alerts,
                "{lost}: no output took them, and nothing is kept without a state directory"
            );
            Exit::Undelivered
        }
    }
}

/// Which of the alerts that no output took are lost without a state directory. Topics keep what they were found in, because
/// their offsets are committed only for what every output has.
fn lost(inputs: &[Input]) -> Option<String> {
    let (topics, others): (Vec<_>, Vec<_>) =
        inputs.iter().partition(|input| matches!(input, Input::Kafka(_)));
    let names = |inputs: Vec<&Input>| inputs.into_iter().map(Input::name).collect::<Vec<_>>().join(", ");
    match (topics.is_empty(), others.is_empty()) {
        (_, true) => None,
        (true, false) => Some("alerts are lost".to_owned()),
        (false, false) => Some(format!(
            "alerts of {} are lost, while those of {} are found again at the next start",
            names(others),
            names(topics)
        )),
    }
}

/// What messages of topics are read for.
fn purpose(role: Role, engines: Engines) -> kafka::Purpose {
    match role {
        Role::All => kafka::Purpose::Whole(engines),
        Role::Detect => kafka::Purpose::Part(engines),
        Role::Correlate => {
            let reach = engines.borrow().look_back().into_iter().max().unwrap_or(0);
            kafka::Purpose::Windows(matches::look_back(reach))
        }
    }
}

/// SHA-256 of the configuration file, or of nothing.
fn digest(typed: &cli::Run) -> String {
    let text = typed.config.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    detectors::bytes::hex(&sha2::Sha256::digest(text))
}

/// What a changed configuration would be seen by.
fn watched(typed: &cli::Run) -> Vec<std::path::PathBuf> {
    let configured = typed.config.iter().flat_map(|path| {
        let paths = crate::config::Config::load(path).map(|config| config.detectors.paths);
        paths.unwrap_or_default().into_iter().chain([path.clone()])
    });
    configured.chain(typed.detectors.iter().cloned()).collect()
}

/// What others ask of the run by signals.
struct Signals {
    ending: oneshot::Receiver<()>,
    hup: Signal,
}

impl Signals {
    /// Before anything else is done, so that who asks meanwhile gets what it asks for too, such as an end in order.
    fn caught() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).context("signals cannot be caught").map_err(Failure::usage);
        let ending = ending(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Signals { ending, hup: listen(SignalKind::hangup())? })
    }
}

/// Told when the run is to end. A second signal ends the process at once, whatever it is busy with.
fn ending(mut term: Signal, mut int: Signal) -> oneshot::Receiver<()> {
    let (first, told) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        // If nobody listens the run is ending by itself.
        let _ = first.send(());
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        tracing::warn!(
            "ended at once by a second signal; what is not acknowledged is read again at the next start"
        );
        std::process::exit(130);
    });
    told
}

/// The lane on a thread of its own: judging is work, not waiting.
fn start_lane(lane: Lane, judging: Judging) -> oneshot::Receiver<std::io::Result<Log>> {
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        // Nobody listens any more if the run was ended at once.
        let _ = done.send(runtime.block_on(lane.run(judging)));
    };
    std::thread::Builder::new()
        .name("lane".to_owned())
        .spawn(work)
        .expect("a thread can be started at the beginning");
    ended
}

/// What runs, said once on standard error.
fn say(live: &Live, judging: &Judging, kept: &Kept, server: SocketAddr) {
    eprint!("{}", described(live, judging));
    let place =
        if kept.durable { live.state_dir.display().to_string() } else { "nothing (stateless)".to_owned() };
    let positions = kept.state.positions.keys().filter(|input| !input.starts_with(OF_THE_RUN)).count();
    eprintln!("state      {place}; {positions} positions restored");
    eprintln!("server     http://{server} /healthz /readyz /metrics");
}

fn print(live: &Live, judging: &Judging) {
    print!("{}", described(live, judging));
}

fn described(live: &Live, judging: &Judging) -> String {
    use std::fmt::Write as _;
    let mut text = format!("lapwing    {}\n", env!("CARGO_PKG_VERSION"));
    if live.role != Role::All {
        let _ = writeln!(text, "role       {}", live.role.name());
    }
    let detectors = judging.engine.detectors();
    let silent = detectors.iter().filter(|detector| !detector.silent.is_empty()).count();
    let correlations = detectors.iter().filter(|detector| detector.correlation).count();
    let _ = writeln!(
        text,
        "detectors  {} ({correlations} correlations; {silent} silent for want of a list)",
        detectors.len()
    );
    for input in &live.inputs {
        let _ = writeln!(text, "input      {}", input.describe());
    }
    for output in &live.outputs {
        let _ = writeln!(text, "output     {}", output.describe());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_keep_what_no_output_took() {
        let kafka = "{type: kafka, name: k, bootstrap_servers: a, topics: [t]}";
        let check = |inputs: &str, exit: Exit, expected: Option<&str>| {
            let live: Live = yaml_serde::from_str(&format!("inputs: {inputs}")).unwrap();
            assert_eq!(lost(&live.inputs).as_deref(), expected);
            assert_eq!(leave(3, false, &live), exit);
            assert_eq!(leave(3, true, &live), Exit::Fine);
            assert_eq!(leave(0, false, &live), Exit::Fine);
        };
        check(&format!("[{kafka}]"), Exit::Fine, None);
        check("[{type: stdin}]", Exit::Undelivered, Some("alerts are lost"));
        check(
            &format!("[{{type: stdin}}, {kafka}]"),
            Exit::Undelivered,
            Some("alerts of stdin are lost, while those of k are found again at the next start"),
        );
    }
}
