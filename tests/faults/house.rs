//! Where a test lives: a directory, a receiver, and the program that is started there again and again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::oracle::{self, Alerts};
use crate::process::{Lapwing, PATIENCE, free_address, soon, until};
use crate::receiver::{Receiver, Taken};
use crate::writer::Writer;

/// A test's surroundings.
pub(crate) struct House {
    /// The test's name.
    pub(crate) name: &'static str,
    /// Everything random comes from this.
    pub(crate) seed: u64,
    /// Where alerts go.
    pub(crate) receiver: Receiver,
    /// Where everything lies. It stays if the test fails.
    directory: tempfile::TempDir,
    /// Added to the configuration.
    pub(crate) config: String,
    /// What the configuration says of detectors, to the program and to the replay.
    pub(crate) judging: String,
    /// Where state is kept.
    pub(crate) state: PathBuf,
    /// What the program follows; nothing if it only listens.
    pub(crate) file: Option<PathBuf>,
    /// Where that begins if there is no position.
    pub(crate) from: &'static str,
    /// Where it takes HTTP, if it does. Another one at every start.
    pub(crate) intake: Option<SocketAddr>,
    /// How often it was killed.
    pub(crate) kills: u64,
    /// How many duplicates may come. If nothing else is said, 100 for each time that it was killed, and none without.
    pub(crate) most_duplicates: Option<usize>,
    /// True if input is taken away for good.
    pub(crate) has_gaps: bool,
    /// Figures beside the usual ones.
    pub(crate) figures: Map<String, Value>,
    began: Instant,
}

impl House {
    /// A house whose program follows `audit.log`.
    pub(crate) fn new(name: &'static str) -> House {
        let given = std::env::var("LAPWING_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| fastrand::u64(0..1 << 32));
        let directory = tempfile::Builder::new().prefix(&format!("lapwing-{name}-")).tempdir().unwrap();
        eprintln!("{name}: LAPWING_FAULTS_SEED={seed} in {}", directory.path().display());
        House {
            name,
            seed,
            receiver: Receiver::new(seed),
            config: String::new(),
            judging: String::new(),
            state: directory.path().join("state"),
            file: Some(directory.path().join("audit.log")),
            from: "start",
            intake: None,
            kills: 0,
            most_duplicates: None,
            has_gaps: false,
            figures: Map::new(),
            began: Instant::now(),
            directory,
        }
    }

    /// Where everything lies.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What the program has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path().join("lapwing.log")).unwrap_or_default()
    }

    /// The configuration file, written anew with the ports at hand.
    pub(crate) fn write_config(&self, server: SocketAddr) {
        std::fs::write(
            self.path().join("lapwing.yaml"),
            format!("server: {{listen: \"{server}\"}}\n{}{}", self.judging, self.config),
        )
        .unwrap();
    }

    /// Starts the program.
    pub(crate) fn start(&mut self) -> Lapwing {
        self.start_under(&[])
    }

    /// Starts the program for the first time and lets it find something, so that it has a position to come back to: without
    /// one it begins with the live file and leaves rotated ones alone.
    pub(crate) fn settle_in(&mut self, writer: &mut Writer) -> Lapwing {
        let mut lapwing = self.start();
        lapwing.ready();
        assert!(writer.rotations == 0);
        until("the first alert comes", || {
            writer.write(3);
            self.receiver.count() > 0
        });
        lapwing
    }

    /// Starts the program under another one.
    pub(crate) fn start_under(&mut self, before: &[String]) -> Lapwing {
        let server = free_address();
        self.write_config(server);
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["run".to_owned(), "-c".to_owned(), path(&self.path().join("lapwing.yaml"))];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--state-dir", path(&self.state));
        flag("--forward", self.receiver.url());
        if let Some(file) = &self.file {
            flag("--file", path(file));
            flag("--from", self.from.to_owned());
        }
        if self.intake.is_some() {
            let intake = free_address();
            flag("--listen", intake.to_string());
            self.intake = Some(intake);
        }
        Lapwing::start(before, &arguments, server, &self.path().join("lapwing.log"))
    }

    /// Kills the program.
    pub(crate) fn kill(&mut self, lapwing: Lapwing) {
        lapwing.kill();
        self.kills += 1;
    }

    /// What a clean replay of all that was written finds.
    pub(crate) fn expected(&self) -> Alerts {
        self.found_in(&self.path().join("clean.jsonl"))
    }

    /// What a clean replay of these events finds.
    pub(crate) fn found_in(&self, events: &Path) -> Alerts {
        let config = self.path().join("replay.yaml");
        std::fs::write(&config, &self.judging).unwrap();
        oracle::replay(events, &config)
    }

    /// As [`House::expected`], but without what needs several events: some may be gone.
    pub(crate) fn singles(&self) -> Alerts {
        self.expected().into_iter().filter(|(_, alert)| alert["source"] == "k8s_audit").collect()
    }

    /// Waits until everything has come, or nothing comes any more.
    pub(crate) fn all_come(&self, expected: &Alerts) {
        let (mut last, mut at) = (0, Instant::now());
        loop {
            let taken = self.receiver.taken();
            if oracle::compare(expected, &taken).missing.is_empty() {
                return;
            }
            if taken.len() > last {
                (last, at) = (taken.len(), Instant::now());
            }
            if at.elapsed() > PATIENCE {
                return; // the verdict will say what is missing
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until everything has come, ends the program in order, and judges.
    pub(crate) fn finish(self, lapwing: Lapwing, rotations: u64) {
        let expected = self.expected();
        self.all_come(&expected);
        let stopping = lapwing.stop();
        self.judge(&expected, rotations, stopping);
    }

    /// Compares what came with what should have come, prints the figures, and insists on the zeros.
    pub(crate) fn judge(self, expected: &Alerts, rotations: u64, stopping: Duration) {
        let taken = self.receiver.taken();
        self.judge_these(expected, &taken, rotations, stopping);
    }

    /// The same for what needs no second event.
    pub(crate) fn judge_singles(self, expected: &Alerts, rotations: u64, stopping: Duration) {
        let mut taken = self.receiver.taken();
        taken.retain(|taken| taken.alert["source"] == "k8s_audit" || oracle::is_of_the_run(&taken.alert));
        self.judge_these(expected, &taken, rotations, stopping);
    }

    fn judge_these(mut self, expected: &Alerts, taken: &[Taken], rotations: u64, stopping: Duration) {
        let verdict = oracle::compare(expected, taken);
        let most_duplicates = self.most_duplicates.unwrap_or(100 * self.kills as usize);
        let mut figures = json!({
            "test": self.name,
            "seed": self.seed,
            "alerts": expected.len(),
            "missing": verdict.missing.len(),
            "spurious": verdict.spurious.len(),
            "unstable_ids": verdict.unstable.len(),
            "duplicates": verdict.duplicates,
            "gaps": verdict.gaps,
            "kills": self.kills,
            "rotations": rotations,
            "stop_seconds": rounded(stopping.as_secs_f64()),
            "seconds": rounded(self.began.elapsed().as_secs_f64()),
        });
        let all = figures.as_object_mut().unwrap();
        all.append(&mut self.figures);
        println!("{figures}");
        let right = verdict.missing.is_empty()
            && verdict.spurious.is_empty()
            && verdict.unstable.is_empty()
            && verdict.duplicates <= most_duplicates
            && (verdict.gaps > 0) == self.has_gaps;
        if !right {
            let kept = self.directory.path().to_owned();
            self.directory.disable_cleanup(true);
            let examples = verdict.examples(expected, taken);
            panic!("{figures}\n{examples}everything is kept in {}", kept.display());
        }
        assert!(expected.len() > 20, "there was too little to find for the test to mean anything: {figures}");
    }

    /// Fails if something is missing by now.
    pub(crate) fn insist(&self, expected: &Alerts, when: &str) {
        let taken = self.receiver.taken();
        let verdict = oracle::compare(expected, &taken);
        assert!(
            verdict.missing.is_empty(),
            "{}: {when}: {} of {} are missing, in {}\n{}{}",
            self.name,
            verdict.missing.len(),
            expected.len(),
            self.path().display(),
            verdict.examples(expected, &taken),
            self.tail()
        );
    }

    /// Waits until more has come than has by now.
    pub(crate) fn progress(&self) {
        let before = self.receiver.count();
        assert!(
            soon(PATIENCE, || self.receiver.count() > before),
            "no alert came for {PATIENCE:?}\n{}",
            self.tail()
        );
    }

    /// Waits a little for more to come; it need not.
    pub(crate) fn progress_or(&self, most: Duration) {
        let before = self.receiver.count();
        soon(most, || self.receiver.count() > before);
    }

    /// The last lines of what the program has said.
    pub(crate) fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if thread::panicking() {
            self.directory.disable_cleanup(true);
        }
    }
}

/// Two digits behind the point are enough.
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
