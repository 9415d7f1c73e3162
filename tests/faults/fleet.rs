//! The two roles of a fleet: members that detect, members that correlate, and the topic between them. Whatever happens to them,
//! what they find together is what one replay finds.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use rdkafka::types::RDKafkaRespErr;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client;
use crate::cluster::{Cluster, PARTITIONS, remember};
use crate::events::{Events, SECOND};
use crate::house::House;
use crate::oracle::Alerts;
use crate::process::{Lapwing, free_address, scaled, until};
use crate::receiver::Mode;

/// A member of which the broker has heard nothing for so long loses its partitions. Brokers take this if they are told to, as
/// `broker.sh` tells them (`group.min.session.timeout.ms`).
const SESSION: Duration = Duration::from_secs(3);
/// The member that joins and leaves again.
const GUEST: usize = 2;
/// The rules of correlations, but for their timespans.
const RULES: &str = include_str!("fleet.yml");
/// Nothing is lost and nothing is made up while partitions move only if what was written since some time can be looked up.
const LOOK_UP: &str = "the mock cluster answers no look-up by time";

/// Counts matches that were read again.
const AGAIN: &str = "lapwing_kafka_messages_read_again_total";

/// 1 if the last reload was taken, 0 if not.
const RELOADED: &str = "lapwing_config_last_reload_successful";
/// A detector of single events, on which no correlation rests.
const QUIET: &str = "rbac/cluster-admin-binding";

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Detect,
    Correlate,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Detect => "detect",
            Role::Correlate => "correlate",
        }
    }
}

/// A member. Its directory outlives its processes.
struct Member {
    role: Role,
    number: usize,
    lapwing: Option<Lapwing>,
    /// It was stopped in its tracks at this time.
    suspended: Option<Instant>,
}

/// What the members went through.
#[derive(Debug, Default)]
struct Story {
    kills: u64,
    stops: u64,
    suspensions: u64,
    guests: u64,
    rebalances: f64,
    read_again: f64,
}

/// A topic of events, one of matches, and the members.
struct Fleet {
    house: House,
    cluster: Cluster,
    events: Events,
    rng: fastrand::Rng,
    /// Every 25 events up to so many seconds pass at once.
    pause: i64,
    /// The topics. Their groups have the same names.
    topic: String,
    matches: String,
    /// What has been remembered and not been sent yet.
    held: Vec<String>,
    members: Vec<Member>,
    story: Story,
}

impl Fleet {
    fn new(name: &'static str, cluster: impl FnOnce(u64) -> Option<Cluster>) -> Option<Fleet> {
        let mut house = House::new(name);
        let cluster = cluster(house.seed)?;
        let (topic, matches) = (cluster.topic(name), cluster.topic(&format!("{name}-matches")));
        house.file = None;
        // Members do not know what others have raised: that is told apart by uuid.
        house.most_duplicates = Some(usize::MAX);
        house.judging += "detectors: {paths: [fleet.yml]}\n";
        rules(&house, "3m", "20m");
        let events = Events::of_few(house.seed, 350, 25);
        let rng = fastrand::Rng::with_seed(house.seed ^ 0xf1ee7);
        Some(Fleet {
            house,
            cluster,
            events,
            rng,
            pause: 240,
            topic,
            matches,
            held: Vec::new(),
            members: Vec::new(),
            story: Story::default(),
        })
    }

    fn mock_or_real(name: &'static str) -> Fleet {
        Fleet::new(name, |seed| Some(Cluster::new(seed))).unwrap()
    }

    /// The input of members that detect.
    fn input(&self) -> String {
        format!(
            "inputs:\n- {{type: kafka, bootstrap_servers: \"{}\", topics: [{topic}], group_id: {topic}, from: start, \
             commit_interval_ms: 200, session_timeout_ms: {session}}}\n",
            self.cluster.servers,
            topic = self.topic,
            session = SESSION.as_millis(),
        )
    }

    /// A process of a member, with its directory.
    fn launch(&self, role: Role, number: usize, inputs: &str) -> Lapwing {
        let name = format!("{}-{number}", role.name());
        let server = free_address();
        let config = self.house.path().join(format!("{name}.yaml"));
        std::fs::write(&config, self.config(server, inputs)).unwrap();
        let state = self.state(role, number);
        let arguments = [
            "run",
            "-c",
            config.to_str().unwrap(),
            "--role",
            role.name(),
            "--state-dir",
            state.to_str().unwrap(),
            "--forward",
            &self.house.receiver.url(),
        ];
        let arguments = arguments.map(str::to_owned);
        Lapwing::start(&[], &arguments, server, &self.house.path().join(format!("{name}.log")))
    }

    /// The configuration of a member.
    fn config(&self, server: SocketAddr, inputs: &str) -> String {
        let matches = format!(
            "matches: {{bootstrap_servers: \"{}\", topic: {matches}, group_id: {matches}, session_timeout_ms: {}, \
             commit_interval_ms: 200}}\n",
            self.cluster.servers,
            SESSION.as_millis(),
            matches = self.matches,
        );
        let House { judging, config: more, .. } = &self.house;
        format!("server: {{listen: \"{server}\"}}\n{judging}{matches}{inputs}{more}")
    }

    /// Writes the configurations of all members anew.
    fn configure(&self) {
        for Member { role, number, lapwing, .. } in &self.members {
            let config = self.config(lapwing.as_ref().unwrap().server, &self.input());
            std::fs::write(self.house.path().join(format!("{}-{number}.yaml", role.name())), config).unwrap();
        }
    }

    /// Sends all members a signal.
    fn signal(&self, signal: Signal) {
        self.members.iter().for_each(|member| member.lapwing.as_ref().unwrap().signal(signal));
    }

    /// What a member has said.
    fn said(&self, member: &Member) -> String {
        let log = format!("{}-{}.log", member.role.name(), member.number);
        std::fs::read_to_string(self.house.path().join(log)).unwrap_or_default()
    }

    fn state(&self, role: Role, number: usize) -> std::path::PathBuf {
        self.house.path().join(format!("state-{}-{number}", role.name()))
    }

    /// Starts a member that is not running, or a new one.
    fn start(&mut self, role: Role, number: usize) {
        let lapwing = self.launch(role, number, &self.input());
        match self.members.iter_mut().find(|member| (member.role, member.number) == (role, number)) {
            Some(member) => member.lapwing = Some(lapwing),
            None => self.members.push(Member { role, number, lapwing: Some(lapwing), suspended: None }),
        }
    }

    /// Two members of each role, which have divided the partitions between them.
    fn assemble(&mut self) {
        for role in [Role::Detect, Role::Correlate] {
            self.start(role, 0);
            self.start(role, 1);
        }
        self.divided();
    }

    /// Waits until all partitions have owners.
    fn divided(&self) {
        for role in [Role::Detect, Role::Correlate] {
            let of = |member: &&Member| member.role == role && member.lapwing.is_some();
            let members: Vec<&Member> = self.members.iter().filter(of).collect();
            until("each member has partitions, and all partitions have members", || {
                let has = |member: &&Member| member.metric("lapwing_kafka_assigned_partitions") as i32;
                let all: Vec<i32> = members.iter().map(has).collect();
                all.iter().sum::<i32>() == PARTITIONS && all.iter().all(|has| *has > 0)
            });
        }
    }

    /// New events, over hours and within minutes.
    fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(self.events.take(25.min(count - taken.len())));
            self.events.jump(self.rng.i64(0..self.pause) * SECOND);
        }
        taken
    }

    /// Sends so many new events, out of order within a partition and across them. Some wait, to come later.
    fn feed(&mut self, count: usize) {
        let events = self.take(count);
        remember(&self.house, &events);
        self.held.extend(events);
        self.rng.shuffle(&mut self.held);
        let late = self.held.len() / 5;
        self.send_but(late);
    }

    /// Sends so many new events to the first partition in their order, and notes them.
    fn feed_in_order(&mut self, sent: &mut Vec<String>, count: usize) {
        let events = self.take(count);
        remember(&self.house, &events);
        for event in &events {
            self.cluster.send(&self.topic, Some(0), Some(event.trim_end().as_bytes()));
        }
        sent.extend(events);
    }

    /// Sends what is held, but for so much of it.
    fn send_but(&mut self, late: usize) {
        self.hand_over_but(late);
        self.cluster.flush();
    }

    /// The same, without waiting until the brokers have it.
    fn hand_over_but(&mut self, late: usize) {
        for event in self.held.drain(late..) {
            self.cluster.send(&self.topic, None, Some(event.trim_end().as_bytes()));
        }
    }

    /// Sends what is held, and waits until all is read and everything has come.
    fn settle(&mut self) -> Alerts {
        self.send_but(0);
        let expected = self.house.expected();
        self.house.all_come(&expected);
        for topic in [&self.topic, &self.matches] {
            until("the groups have no lag", || self.cluster.is_read(topic, topic));
        }
        expected
    }

    /// Ends everything in order, and judges.
    fn finish(mut self) {
        let expected = self.settle();
        self.judge(&expected);
    }

    fn judge(mut self, expected: &Alerts) {
        let mut slowest = Duration::ZERO;
        let single = |alert: &&Value| alert["source"] == "k8s_audit";
        let correlated = expected.len() - expected.values().filter(single).count();
        for mut member in std::mem::take(&mut self.members) {
            self.story.hear(&member);
            if let Some(lapwing) = member.lapwing.take() {
                slowest = slowest.max(lapwing.stop());
            }
        }
        let Story { kills, stops, suspensions, guests, rebalances, read_again } = self.story;
        for (key, value) in [
            ("correlations", json!(correlated)),
            ("stops", json!(stops)),
            ("suspensions", json!(suspensions)),
            ("guests", json!(guests)),
            ("rebalances", json!(rebalances)),
            ("read_again", json!(read_again)),
            ("real", json!(self.cluster.is_real())),
        ] {
            self.house.figures.insert(key.to_owned(), value);
        }
        self.house.kills = kills;
        assert!(correlated > 20, "there are {correlated} correlations, which are too few to mean anything");
        self.house.judge(expected, 0, slowest);
    }

    /// The matches of events of the last half a day, in the order in which they were written: each up to half an hour after it
    /// happened, in milliseconds. From here on the topic of matches is an empty one.
    fn history(&mut self, events: usize) -> Vec<(i64, OwnedMessage)> {
        let begin = millis_now() * 1_000 - 14 * 3_600 * SECOND;
        let mut times: Vec<i64> = (0..events / 25).map(|_| self.rng.i64(0..13 * 3_600 * SECOND)).collect();
        times.sort_unstable();
        self.start(Role::Detect, 0);
        for time in times {
            self.events.begin(begin + time);
            self.feed(25);
        }
        self.send_but(0);
        until("all events are judged", || self.cluster.is_read(&self.topic, &self.topic));
        self.members.remove(0).lapwing.unwrap().stop();
        let read = self.cluster.read(&self.matches, self.cluster.written(&self.matches));
        let late = |message| (time_of(&message) + self.rng.i64(0..1_800_000), message);
        let mut history: Vec<(i64, OwnedMessage)> = read.into_iter().map(late).collect();
        history.sort_by_key(|(written, _)| *written);
        self.matches = self.cluster.topic(&format!("{}-matches", self.house.name));
        history
    }

    /// Sends matches as if it were the time when they were written.
    fn send_history(&mut self, part: &[(i64, OwnedMessage)]) {
        for (written, message) in part {
            self.cluster.send_of(&self.matches, message.partition(), message.payload().unwrap(), *written);
        }
        self.cluster.flush();
    }

    /// Kills all members of a role.
    fn kill_all(&mut self, role: Role) {
        for member in self.members.iter_mut().filter(|member| member.role == role) {
            if let Some(lapwing) = member.lapwing.take() {
                lapwing.kill();
                self.story.kills += 1;
            }
        }
    }

    /// Something happens to one of the members.
    fn happens(&mut self) {
        let awake = |member: &&mut Member| member.lapwing.is_some() && member.suspended.is_none();
        let awake: Vec<&mut Member> = self.members.iter_mut().filter(awake).collect();
        let Some(member) = self.rng.choice(awake) else { return };
        let lapwing = member.lapwing.take().unwrap();
        self.story.hear_of(&lapwing);
        match self.rng.u8(0..10) {
            0..6 => {
                lapwing.kill();
                self.story.kills += 1;
            }
            6..8 => {
                lapwing.stop();
                self.story.stops += 1;
            }
            _ => {
                lapwing.signal(Signal::STOP);
                self.story.suspensions += 1;
                member.lapwing = Some(lapwing);
                member.suspended = Some(Instant::now());
            }
        }
    }

    /// Those who are down come back, and those who were suspended for longer than a session go on.
    fn come_back(&mut self, all: bool) {
        for at in 0..self.members.len() {
            let Member { role, number, lapwing, suspended } = &mut self.members[at];
            if let Some(since) = suspended
                && (all || since.elapsed() > SESSION + Duration::from_secs(1))
            {
                thread::sleep((SESSION + Duration::from_secs(1)).saturating_sub(since.elapsed()));
                lapwing.as_ref().unwrap().signal(Signal::CONT);
                *suspended = None;
            }
            let (role, number) = (*role, *number);
            if lapwing.is_none() && (all || number < GUEST && self.rng.bool()) {
                self.start(role, number);
            }
        }
    }

    /// A member joins that was not there before, or the one that did leaves.
    fn guest(&mut self) {
        let role = if self.rng.bool() { Role::Detect } else { Role::Correlate };
        let is_guest = |member: &&mut Member| member.role == role && member.number == GUEST;
        match self.members.iter_mut().find(is_guest) {
            Some(Member { suspended: Some(_), .. }) => {}
            Some(Member { lapwing: lapwing @ Some(_), .. }) => {
                let lapwing = lapwing.take().unwrap();
                self.story.hear_of(&lapwing);
                lapwing.stop();
                self.story.stops += 1;
            }
            _ => {
                self.start(role, GUEST);
                self.story.guests += 1;
            }
        }
    }

    /// Feeds for so long.
    fn feed_for(&mut self, time: Duration, events: usize) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.feed(events);
            thread::sleep(Duration::from_millis(self.rng.u64(20..200)));
        }
    }

    /// The letters in the directories of those who correlate.
    fn letters(&self) -> Vec<Value> {
        let mut letters = Vec::new();
        for number in 0..2 {
            let file = self.state(Role::Correlate, number).join("dead-letters.ndjson");
            let lines = std::fs::read_to_string(file).unwrap_or_default();
            letters.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        letters
    }
}

impl Member {
    fn metric(&self, name: &str) -> f64 {
        self.lapwing.as_ref().map_or(0.0, |lapwing| lapwing.metric(name))
    }
}

impl Story {
    fn hear(&mut self, member: &Member) {
        member.lapwing.iter().for_each(|lapwing| self.hear_of(lapwing));
    }

    fn hear_of(&mut self, lapwing: &Lapwing) {
        self.rebalances += lapwing.metric("lapwing_kafka_rebalances_total");
        self.read_again += lapwing.metric(AGAIN);
    }
}

/// The time of a match, in milliseconds since 1970.
fn time_of(message: &OwnedMessage) -> i64 {
    let time = &message.payload().unwrap()[MAGIC.len()..MAGIC.len() + 8];
    i64::from_le_bytes(time.try_into().unwrap()) / 1_000_000
}

fn millis_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The rules, with these timespans.
fn rules(house: &House, short: &str, long: &str) {
    let rules = RULES.replace("SHORT", short).replace("LONG", long);
    std::fs::write(house.path().join("fleet.yml"), rules).unwrap();
}

#[test]
fn a_fleet_finds_what_one_process_finds() {
    let mut fleet = Fleet::mock_or_real("fleet");
    fleet.assemble();
    for _ in 0..scaled(4, 40) {
        fleet.feed(400);
    }
    fleet.finish();
}

#[test]
fn members_are_killed_and_added_while_events_come() {
    let Some(mut fleet) = Fleet::new("fleet-kills", |seed| Cluster::real(seed, LOOK_UP)) else { return };
    fleet.assemble();
    for _ in 0..scaled(6, 36) {
        fleet.feed_for(scaled(Duration::from_millis(2_500), Duration::from_secs(5)), 40);
        fleet.happens();
        if fleet.rng.u8(0..4) == 0 {
            fleet.guest();
        }
        fleet.come_back(false);
    }
    fleet.come_back(true);
    fleet.finish();
}

/// The same for a history of half a day, whose messages are as old as the events in them: what windows need is looked up by time.
#[test]
fn members_are_killed_while_a_history_is_counted() {
    let Some(mut fleet) = Fleet::new("fleet-history", |seed| Cluster::real(seed, LOOK_UP)) else { return };
    let history = fleet.history(scaled(2_000, 2_500));
    fleet.start(Role::Correlate, 0);
    fleet.start(Role::Correlate, 1);
    let turns = scaled(4, 25);
    for part in history.chunks(history.len().div_ceil(turns)) {
        fleet.send_history(part);
        fleet.happens();
        fleet.come_back(true);
        until("what is there is counted", || fleet.cluster.is_read(&fleet.matches, &fleet.matches));
    }
    let again: f64 = fleet.members.iter().map(|m| m.metric(AGAIN)).sum();
    assert!(again > 0.0, "windows were filled by what they reach back to");
    fleet.start(Role::Detect, 0);
    fleet.house.figures.insert("matches".to_owned(), json!(history.len()));
    fleet.finish();
}

/// How far windows reach back: three times the longest timespan, which is an hour in the catalogue.
const REACH: i64 = 3 * 3_600_000;
/// What is allowed for clocks that differ.
const SKEW: i64 = 300_000;

/// A member takes over a history of half a day, of which everything is counted. For what is of now it reads again, in silence, what
/// was written since windows reach back from now; for a match that is older, what was written since twice as long before.
#[test]
fn no_more_is_read_again_than_windows_reach_back_to() {
    let Some(mut fleet) = Fleet::new("fleet-reach", |seed| Cluster::real(seed, LOOK_UP)) else { return };
    let history = fleet.history(scaled(1_000, 2_500));
    fleet.send_history(&history);
    let (matches, begun) = (fleet.matches.clone(), millis_now());
    fleet.cluster.commit_all(&matches, &matches);
    fleet.start(Role::Correlate, 0);
    let written_since = |partition: Option<i32>, since: i64| {
        let of = |message: &OwnedMessage| partition.is_none_or(|partition| message.partition() == partition);
        history.iter().filter(|(written, message)| *written >= since && of(message)).count()
    };
    let all_is_read = |fleet: &mut Fleet, partitions: std::ops::Range<i32>, payload: &[u8]| {
        for partition in partitions {
            fleet.cluster.send(&matches, Some(partition), Some(payload));
        }
        fleet.cluster.flush();
        until("all is read", || fleet.cluster.is_read(&matches, &matches));
        fleet.members[0].metric(AGAIN) as usize
    };
    // Behind everything that is read again comes one of now.
    let mut of_now = history[0].1.payload().unwrap().to_vec();
    of_now[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&(millis_now() * 1_000_000).to_le_bytes());
    let again = all_is_read(&mut fleet, 0..PARTITIONS, &of_now);
    let assigned = millis_now();
    let reached = |asked: i64| written_since(None, asked - REACH - 2 * SKEW);
    assert!((reached(assigned)..=reached(begun)).contains(&again), "{again}, and not {}", reached(begun));
    assert!(again > 50 && again < history.len() / 2, "{again} of {}", history.len());

    let (_, old) = history.iter().rfind(|(_, message)| time_of(message) < begun - REACH - 2 * SKEW).unwrap();
    let partition = old.partition();
    let later = all_is_read(&mut fleet, partition..partition + 1, old.payload().unwrap()) - again;
    // Beside the one of now.
    let reached = |asked: i64| 1 + written_since(Some(partition), 2 * time_of(old) - REACH - asked);
    assert!((reached(begun)..=reached(assigned)).contains(&later), "{later}, and not {}", reached(begun));
    assert!(later < 1 + written_since(Some(partition), 0), "that is everything");
    let taken = fleet.house.receiver.taken();
    let raised = taken.iter().filter(|taken| taken.alert["source"] != "k8s_audit");
    assert_eq!(raised.map(|taken| &taken.alert).collect::<Vec<_>>(), Vec::<&Value>::new());
    fleet.members.remove(0).lapwing.unwrap().stop();
}

#[test]
fn brokers_are_away_at_the_start_and_in_the_middle() {
    let Some(mut fleet) = Fleet::new("fleet-brokers", Cluster::alone) else { return };
    let mut restarts = 0;
    fleet.cluster.brokers("stop", &["--keep"]);
    for role in [Role::Detect, Role::Correlate] {
        fleet.start(role, 0);
        fleet.start(role, 1);
    }
    thread::sleep(Duration::from_secs(2));
    fleet.cluster.brokers("start", &[]);
    fleet.divided();
    for _ in 0..scaled(2, 12) {
        fleet.feed(300);
        thread::sleep(Duration::from_millis(fleet.rng.u64(0..500)));
        // Some is on its way when they go.
        let events = fleet.take(100);
        remember(&fleet.house, &events);
        fleet.held.extend(events);
        fleet.hand_over_but(0);
        let (command, which): (_, &[_]) = match restarts % 2 {
            0 => ("kill", &["--broker", "1"]),
            _ => ("stop", &["--keep"]),
        };
        fleet.cluster.brokers(command, which);
        thread::sleep(Duration::from_millis(fleet.rng.u64(0..scaled(3_000, 15_000))));
        fleet.cluster.brokers("start", &[]);
        fleet.cluster.flush();
        restarts += 1;
    }
    fleet.house.figures.insert("restarts".to_owned(), json!(restarts));
    fleet.finish();
}

/// Members that detect are killed for good while their outputs take nothing: what they committed is there nevertheless, as
/// matches or in their directories.
#[test]
fn what_is_committed_needs_nobody_who_judged_it() {
    for _ in 0..scaled(2, 12) {
        let mut fleet = Fleet::mock_or_real("fleet-committed");
        let bad = if fleet.rng.bool() { Mode::Refuse } else { Mode::Status(503, None) };
        fleet.house.receiver.set(bad);
        if !fleet.cluster.is_real() {
            fleet.start(Role::Correlate, 0);
        }
        fleet.start(Role::Detect, 0);
        fleet.start(Role::Detect, 1);
        // One partition, in order: what is below an offset is what came first.
        let mut sent = Vec::new();
        let enough = fleet.rng.i64(300..900);
        until("events are committed", || {
            fleet.feed_in_order(&mut sent, 50);
            fleet.cluster.offsets(&fleet.topic, &fleet.topic, 0).2.unwrap_or(0) >= enough
        });
        fleet.feed_in_order(&mut sent, 600);
        thread::sleep(Duration::from_millis(fleet.rng.u64(0..400)));
        fleet.kill_all(Role::Detect);
        fleet.cluster.flush();
        let committed = fleet.cluster.offsets(&fleet.topic, &fleet.topic, 0).2.unwrap() as usize;
        let before = fleet.house.path().join("committed.jsonl");
        std::fs::write(&before, sent[..committed].concat()).unwrap();
        let expected = fleet.house.found_in(&before);
        let (singles, correlations): (Alerts, Alerts) =
            expected.into_iter().partition(|(_, alert)| alert["source"] == "k8s_audit");
        assert!(singles.len() > 20 && correlations.len() > 10);
        fleet.house.receiver.set(Mode::Accept);
        if fleet.cluster.is_real() {
            fleet.start(Role::Correlate, 0);
            fleet.start(Role::Correlate, 1);
        }
        fleet.house.all_come(&correlations);
        fleet.house.insist(&correlations, "from the matches of members that are gone");
        // They only deliver what their directories hold.
        let nothing = fleet.house.path().join("nothing.log");
        std::fs::write(&nothing, "").unwrap();
        let inputs = format!("inputs: [{{type: file, paths: [{}]}}]\n", nothing.display());
        let last: Vec<Lapwing> = (0..2).map(|number| fleet.launch(Role::Detect, number, &inputs)).collect();
        fleet.house.all_come(&singles);
        fleet.house.insist(&singles, "from the directories of members that are gone");
        for lapwing in last {
            lapwing.stop();
        }
        fleet.start(Role::Detect, 0);
        fleet.start(Role::Detect, 1);
        fleet.house.figures.insert("committed".to_owned(), json!(committed));
        fleet.house.figures.insert("sent".to_owned(), json!(sent.len()));
        fleet.finish();
    }
}

#[test]
fn matches_that_were_deleted_before_they_were_counted_are_told_exactly() {
    let mut fleet = Fleet::mock_or_real("fleet-gap");
    fleet.assemble();
    fleet.feed(400);
    fleet.settle();
    for member in fleet.members.iter_mut().filter(|member| member.role == Role::Correlate) {
        member.lapwing.take().unwrap().stop();
    }
    let matches = fleet.matches.clone();
    let committed: Vec<i64> =
        (0..PARTITIONS).map(|n| fleet.cluster.offsets(&matches, &matches, n).2.unwrap_or(0)).collect();
    fleet.feed(400);
    fleet.send_but(0);
    until("all events are judged", || fleet.cluster.is_read(&fleet.topic, &fleet.topic));
    fleet.cluster.delete_all(&matches);
    let lost: Vec<i64> = (0..PARTITIONS)
        .map(|n| (fleet.cluster.offsets(&matches, &matches, n).0 - committed[n as usize]).max(0))
        .collect();
    let (gap, parts) = (lost.iter().sum::<i64>(), lost.iter().filter(|lost| **lost > 0).count());
    assert!(gap > 0, "something is gone");
    fleet.start(Role::Correlate, 0);
    let gaps = |fleet: &Fleet| -> f64 {
        fleet.members.iter().map(|member| member.metric("lapwing_kafka_gap_messages_total")).sum()
    };
    until("the gap is counted", || gaps(&fleet) as i64 >= gap);
    until("where it ends is committed", || fleet.cluster.is_read(&matches, &matches));
    fleet.start(Role::Correlate, 1);
    fleet.divided();
    fleet.feed(400);
    fleet.send_but(0);
    let expected = fleet.house.expected();
    let singles = fleet.house.singles();
    fleet.house.all_come(&singles);
    for topic in [&fleet.topic, &matches] {
        until("the groups have no lag", || fleet.cluster.is_read(topic, topic));
    }
    assert_eq!(gaps(&fleet) as i64, gap, "the gap is counted once");
    let verdict = crate::oracle::compare(&expected, &fleet.house.receiver.taken());
    assert!(verdict.spurious.is_empty() && verdict.unstable.is_empty(), "{verdict:?}");
    assert_eq!(verdict.gaps, parts, "there is an alert about each partition");
    fleet.house.figures.insert("gap_messages".to_owned(), json!(gap));
    fleet.house.has_gaps = true;
    for mut member in std::mem::take(&mut fleet.members) {
        member.lapwing.take().unwrap().stop();
    }
    fleet.house.judge_singles(&singles, 0, Duration::ZERO);
}

/// A record of the topic of matches begins with this, the time, the logic, and the length of the name before the name.
const MAGIC: &[u8] = b"lapwing/step\0";

/// What is no match, or none that anybody here knows.
fn poisons(rng: &mut fastrand::Rng, record: &[u8]) -> Vec<Vec<u8>> {
    let with = |at: usize| {
        let mut record = record.to_vec();
        record[at] ^= 1;
        record
    };
    let (logic, name) = (MAGIC.len() + 8, MAGIC.len() + 8 + 32 + 1);
    let mut random: Vec<u8> = (0..rng.usize(1..5_000)).map(|_| rng.u8(..)).collect();
    random[0] = 1;
    vec![
        with(logic + rng.usize(0..32)),
        with(name),
        with(0),
        record[..rng.usize(1..record.len())].to_vec(),
        random,
        [MAGIC, &[0xff; 100]].concat(),
        b"\x1f\x8b packed, it says".to_vec(),
        vec![1; 900_000],
    ]
}

#[test]
fn whatever_stands_among_the_matches_the_others_are_counted() {
    let mut fleet = Fleet::mock_or_real("fleet-poison");
    fleet.assemble();
    fleet.feed(300);
    fleet.settle();
    let matches = fleet.matches.clone();
    let known = fleet.cluster.read(&matches, 50);
    let (mut sent, mut wild) = (Vec::new(), 0);
    for _ in 0..scaled(4, 30) {
        let record = fleet.rng.choice(&known).unwrap().payload().unwrap().to_vec();
        assert!(record.starts_with(MAGIC));
        for poison in poisons(&mut fleet.rng, &record) {
            fleet.cluster.send(&matches, None, Some(&poison));
            sent.push(poison);
        }
        fleet.cluster.send(&matches, None, None);
        // A time that nothing happened at is none of a window in which something did.
        for time in [i64::MIN, i64::MAX, 0] {
            let mut record = record.clone();
            record[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&time.to_le_bytes());
            fleet.cluster.send(&matches, None, Some(&record));
            wild += 1;
        }
        fleet.feed(100);
    }
    let expected = fleet.settle();
    let all = fleet.cluster.read(&matches, known.len() + sent.len() + wild);
    let is_poison = |payload: &[u8]| sent.iter().any(|poison| poison == payload);
    let mut wanted: Vec<(String, i64)> = all
        .iter()
        .filter(|message| message.payload().is_some_and(is_poison))
        .map(|message| (format!("{matches}/{}", message.partition()), message.offset()))
        .collect();
    let place =
        |letter: &Value| (letter["stream"].as_str().unwrap().to_owned(), letter["offset"].as_i64().unwrap());
    let mut letters: Vec<(String, i64)> = fleet.letters().iter().map(place).collect();
    wanted.sort_unstable();
    letters.sort_unstable();
    assert_eq!(letters, wanted, "each is a dead letter, with its topic, partition and offset");
    fleet.house.figures.insert("poisons".to_owned(), json!(sent.len()));
    fleet.judge(&expected);
}

/// One member must not change what others count: other correlations are refused and told of, and what was before goes on. What
/// belongs to each member by itself is taken.
#[test]
fn a_reload_takes_no_other_correlations() {
    let mut fleet = Fleet::mock_or_real("fleet-reload");
    fleet.assemble();
    fleet.feed(200);
    let (file, first) = (fleet.house.path().join("fleet.yml"), fleet.house.path().join("first.yml"));
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&first, &rules).unwrap();
    fleet.house.judging = "detectors: {paths: [first.yml]}\n".to_owned();
    let fewer = rules.replacen("condition: {gte: 4}", "condition: {gte: 3}", 1);
    let shown = rules.replacen("level: low", "level: low\nfields: [target.name]", 1);
    for (nth, other) in [fewer, shown].into_iter().enumerate() {
        assert_ne!(other, rules);
        std::fs::write(&file, other).unwrap();
        fleet.signal(Signal::HUP);
        until("each member says that it does not take them", || {
            fleet.members.iter().all(|member| {
                let refused = "all members of a fleet need the same";
                member.metric(RELOADED) == 0.0 && fleet.said(member).matches(refused).count() > nth
            })
        });
        fleet.feed(200);
    }
    let before = fleet.settle();
    fleet.house.insist(&before, "by the rules that were there first");
    let told = fleet.house.receiver.taken();
    assert!(told.iter().any(|taken| taken.alert["detector"] == "integrity/reload-failed"));

    let quiet = |alert: &Value| alert["detector"] == QUIET;
    let known = before.values().filter(|alert| quiet(alert)).count();
    let disabled = format!("detectors: {{paths: [fleet.yml], disable: [{QUIET}]}}\n");
    let judging = std::mem::replace(&mut fleet.house.judging, disabled);
    fleet.configure();
    std::fs::write(&file, &rules).unwrap();
    fleet.signal(Signal::HUP);
    until("each member takes them", || fleet.members.iter().all(|member| member.metric(RELOADED) > 0.0));
    fleet.feed(300);
    let mut expected = fleet.settle();
    let disabled = std::mem::replace(&mut fleet.house.judging, judging);
    let all = fleet.house.expected();
    fleet.house.judging = disabled;
    assert!(known > 0 && all.values().filter(|alert| quiet(alert)).count() > known);
    expected.extend(before);
    fleet.judge(&expected);
}

#[test]
fn a_topic_of_matches_that_is_not_there_yet() {
    let mut fleet = Fleet::mock_or_real("fleet-later");
    if let Some(mock) = &fleet.cluster.mock {
        mock.topic_error(&fleet.matches, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    } else {
        fleet.matches += "-later";
    }
    fleet.feed(300);
    for role in [Role::Detect, Role::Correlate] {
        fleet.start(role, 0);
        fleet.start(role, 1);
    }
    let said = |member: &Member| {
        client::get(member.lapwing.as_ref().unwrap().server, "/readyz")
            .filter(|(status, _)| *status == 503)
            .map_or_else(String::new, |(_, text)| text)
    };
    until("those who detect say what they wait for", || {
        let detect = fleet.members.iter().filter(|member| member.role == Role::Detect);
        detect.map(said).any(|text| text.contains("the topic of matches cannot be written"))
    });
    thread::sleep(Duration::from_secs(1));
    for partition in 0..PARTITIONS {
        let (.., committed) = fleet.cluster.offsets(&fleet.topic, &fleet.topic, partition);
        assert!(committed.unwrap_or(0) == 0, "{committed:?} is committed, and nobody has the matches");
    }
    if let Some(mock) = &fleet.cluster.mock {
        mock.topic_error(&fleet.matches, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    } else {
        fleet.cluster.make(&fleet.matches, &[]);
    }
    fleet.divided();
    fleet.feed(300);
    fleet.finish();
}

#[test]
fn rules_and_files_that_no_fleet_can_run_are_refused() {
    let house = House::new("fleet-refused");
    rules(&house, "3m", "20m");
    let growing = std::fs::read_to_string(house.path().join("fleet.yml")).unwrap();
    let input = "inputs: [{type: kafka, bootstrap_servers: \"127.0.0.1:1\", topics: [a]}]\n";
    let matches = "matches: {bootstrap_servers: \"127.0.0.1:1\"}\n";
    let check = |rule: &str, config: &str, arguments: &[&str], wanted: &str| {
        std::fs::write(house.path().join("fleet.yml"), format!("{growing}{rule}")).unwrap();
        let file = house.path().join("lapwing.yaml");
        std::fs::write(&file, format!("detectors: {{paths: [fleet.yml]}}\n{config}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
        let (words, options) = arguments.split_at(if arguments[0] == "config" { 2 } else { 1 });
        command.args(words);
        if words[0] == "run" {
            command.arg("-c");
        }
        let output = command.arg(&file).args(options).current_dir(house.path()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?} {config}: {told}");
        assert!(told.contains(wanted), "{arguments:?} {config}: {told}");
    };
    let falling = |condition: &str| {
        format!(
            "---\ntitle: Falling\nname: fleet/falling\nstatus: test\nlevel: low\ncorrelation:\n  type: event_count\n  \
             rules: [fleet/_secret]\n  group-by: [actor.name]\n  timespan: 5m\n  condition: {condition}\n"
        )
    };
    let whole = format!("{matches}{input}");
    for condition in ["{lt: 3}", "{eq: 2}", "{gte: 2, lte: 9}"] {
        for arguments in
            [&["run", "--role", "detect"][..], &["run", "--role", "correlate"], &["config", "check"]]
        {
            check(&falling(condition), &whole, arguments, "fleet/falling");
        }
    }
    for role in ["detect", "correlate"] {
        check("", input, &["run", "--role", role], "matches");
        check("", &format!("role: {role}\n{input}"), &["config", "check"], "matches");
    }
    check("", matches, &["run", "--role", "detect"], "no input is named");
}
