//! A run that is asked to end, to read its configuration anew, or to make sense of clocks that jump.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::events::{Events, SECOND};
use crate::house::House;
use crate::kills::while_writing;
use crate::oracle;
use crate::process::{Lapwing, scaled, soon, until};
use crate::receiver::Mode;
use crate::writer::{Rotation, Writer};

const ROTATION: Rotation = Rotation::Rename { compress: true };

#[test]
fn asked_to_end_while_events_flow() {
    let mut house = House::new("sigterm");
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, 1 << 20, house.seed);
    let mut slowest = house.settle_in(&mut writer).stop();
    let writer = while_writing(writer, house.seed, || {
        for _ in 0..scaled(6, 60) {
            let mut lapwing = house.start();
            // Before that the signal may come too early to be caught, which is a kill.
            lapwing.ready();
            thread::sleep(Duration::from_millis(rng.u64(0..800)));
            slowest = slowest.max(lapwing.stop());
        }
    });
    house.figures.insert("slowest_stop_seconds".into(), crate::house::rounded(slowest.as_secs_f64()).into());
    let lapwing = house.start();
    // Nothing comes twice when it ends in order: nothing was killed here.
    house.finish(lapwing, writer.rotations);
}

#[test]
fn asked_twice_it_ends_at_once() {
    let mut house = House::new("sigterm-twice");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 200), ROTATION, 1 << 20, house.seed);
    let mut lapwing = house.start();
    lapwing.ready();
    house.receiver.set(Mode::Hang);
    writer.write(300);
    thread::sleep(Duration::from_secs(1));
    lapwing.signal(Signal::TERM);
    let ended = soon(Duration::from_millis(500), || lapwing.ended().is_some());
    lapwing.signal(Signal::TERM);
    let status = lapwing.wait(Duration::from_secs(5));
    house.figures.insert("ended_at_the_first".into(), ended.into());
    assert!(ended || status.code() == Some(130), "{status:?}");
    house.receiver.set(Mode::Accept);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

#[test]
fn told_to_end_while_the_receiver_hangs() {
    let mut house = House::new("sigterm-hang");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 200), ROTATION, 1 << 20, house.seed);
    house.receiver.set(Mode::Hang);
    let mut lapwing = house.start();
    lapwing.ready();
    writer.write(300);
    thread::sleep(Duration::from_secs(1));
    let took = lapwing.stop();
    house
        .figures
        .insert("stop_while_hanging_seconds".into(), crate::house::rounded(took.as_secs_f64()).into());
    house.receiver.set(Mode::Accept);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

#[test]
fn reloaded_while_events_flow() {
    let mut house = House::new("sighup");
    let good = [
        "detectors: {exceptions: [{detector: 'rbac/*', when: {actor.name: nobody@example.org}}]}\n",
        "lists: {trusted_proxies: [192.0.2.1]}\n",
        "",
    ];
    let writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, 1 << 20, house.seed);
    let mut lapwing = house.start();
    lapwing.ready();
    let server = lapwing.server;
    let writer = while_writing(writer, house.seed, || {
        for round in 0..scaled(12, 100) {
            if round % 4 == 3 {
                house.config = "detectrs: {}\n".to_owned();
            } else {
                good[round % good.len()].clone_into(&mut house.config);
            }
            house.write_config(server);
            lapwing.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(300));
            assert!(lapwing.ended().is_none(), "{}", house.tail());
        }
    });
    until("the broken configuration is told of", || {
        house.receiver.taken().iter().any(|taken| taken.alert["detector"] == "integrity/reload-failed")
    });
    told_once(&mut house, &lapwing);
    house.finish(lapwing, writer.rotations);
}

/// A signal for a file that has changed causes one reload, whether or not the file is any good; the change itself is no second
/// cause.
fn told_once(house: &mut House, lapwing: &Lapwing) {
    let failures = |house: &House| house.said().matches("the reload failed").count();
    let before = failures(house);
    // Found by the look at the files: from now on there is some time to the next one.
    "detectrs: {first: 1}\n".clone_into(&mut house.config);
    house.write_config(lapwing.server);
    until("the change is found", || failures(house) > before);
    "detectrs: {second: 2}\n".clone_into(&mut house.config);
    house.write_config(lapwing.server);
    lapwing.signal(Signal::HUP);
    until("the signal is heard", || failures(house) > before + 1);
    // Two more looks.
    assert!(!soon(Duration::from_secs(5), || failures(house) > before + 2), "{}", house.tail());
}

/// Within what is promised: a minute back, less than five minutes ahead.
#[test]
fn clocks_that_jump() {
    let mut house = House::new("clocks");
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, 1 << 20, house.seed);
    let lapwing = house.settle_in(&mut writer);
    for round in 0..scaled(40, 400) {
        writer.write(100);
        let seconds = if round % 2 == 0 { rng.i64(-40..-10) } else { rng.i64(50..280) };
        writer.events.jump(seconds * SECOND);
    }
    house.finish(lapwing, writer.rotations);
}

/// Beyond what is promised for correlations, each event is still judged.
#[test]
fn clocks_that_are_wrong() {
    let mut house = House::new("wrong-clocks");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), ROTATION, 1 << 20, house.seed);
    let lapwing = house.settle_in(&mut writer);
    for hours in [30, -50, 400, -390, 24 * 365 * 70, -24 * 365 * 70, -24 * 365 * 40] {
        writer.write(200);
        writer.events.jump(hours * 3600 * SECOND);
    }
    let expected = house.singles();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    let whole = oracle::compare(&house.expected(), &house.receiver.taken());
    house.figures.insert("correlations_missing".into(), whole.missing.len().into());
    house.figures.insert("correlations_spurious".into(), whole.spurious.len().into());
    house.judge_singles(&expected, writer.rotations, stopping);
}

/// A rotated file that is deleted while it is still open is read to its end.
#[test]
fn deleted_under_its_hands() {
    let mut house = House::new("deleted");
    let mut writer = Writer::new(
        house.path(),
        Events::new(house.seed, 60),
        Rotation::Rename { compress: false },
        u64::MAX,
        house.seed,
    );
    let lapwing = house.settle_in(&mut writer);
    for _ in 0..scaled(5, 50) {
        writer.write(50);
        house.progress_or(Duration::from_secs(2));
        lapwing.signal(Signal::STOP);
        writer.write(400);
        writer.rotate();
        for old in writer.backups() {
            fs::remove_file(old).unwrap();
        }
        writer.write(100);
        lapwing.signal(Signal::CONT);
        house.progress();
    }
    house.finish(lapwing, writer.rotations);
}

/// A file that is gone before it was read is told of; everything else still comes.
#[test]
fn what_is_really_gone_is_told() {
    let mut house = House::new("gap");
    let rotation = Rotation::Rename { compress: false };
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), rotation, u64::MAX, house.seed);
    let first = house.settle_in(&mut writer);
    writer.write(500);
    house.all_come(&house.expected());
    house.kill(first);
    // Nobody looks while these come and go: nothing of them can be found.
    let clean = house.path().join("clean.jsonl");
    let before = fs::read(&clean).unwrap();
    writer.write(500);
    writer.rotate();
    writer.write(500);
    writer.rotate();
    for old in writer.backups() {
        fs::remove_file(old).unwrap();
    }
    fs::write(&clean, before).unwrap();
    writer.write(500);
    let lapwing = house.start();
    until("the gap is told of", || {
        house.receiver.taken().iter().any(|taken| taken.alert["detector"] == "integrity/input-gap")
    });
    house.has_gaps = true;
    let expected = house.singles();
    house.all_come(&expected);
    let stopping = lapwing.stop();
    let rotations = writer.rotations;
    house.judge_singles(&expected, rotations, stopping);
}

/// Lines that are no events, or hardly: what is made of them, and of their neighbours, is what a replay makes of them.
#[test]
fn poisoned_lines_are_judged_as_in_a_replay() {
    let mut house = House::new("poison");
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, 4 << 20, house.seed);
    let first = house.settle_in(&mut writer);
    house.kill(first);
    let mut others = Events::new(house.seed + 1, 500);
    for round in 0..scaled(6, 40) {
        let lapwing = house.start();
        for kind in 0..11 {
            writer.write(rng.usize(1..40));
            writer.append(&poison(kind, &others.next(), &mut rng));
            if rng.u8(0..6) == 0 {
                thread::sleep(Duration::from_millis(rng.u64(0..200)));
            }
        }
        if round == 0 {
            writer.append(&[vec![b'x'; 17 << 20], b"\n".to_vec()].concat());
        }
        writer.write(5);
        house.kill(lapwing);
    }
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

/// A line, or several, that should not be.
fn poison(kind: u8, line: &str, rng: &mut fastrand::Rng) -> Vec<u8> {
    let event = line.trim_end();
    let mut bytes = event.as_bytes().to_vec();
    match kind {
        0 => bytes.truncate(rng.usize(1..event.len())),
        1 => bytes = b"I0305 00:00:00.000000 1 server.go:1] this is no JSON".to_vec(),
        2 => bytes = vec![b'['; rng.usize(1..200_000)],
        3 => bytes.push(b'\r'),
        4 => {
            let at = event.find("\"username\":\"").unwrap() + 14;
            bytes.insert(at, 0xff);
        }
        5 => bytes = [b"\n\n   \n".as_slice(), event.as_bytes()].concat(),
        6 => bytes = [event.as_bytes(), event.as_bytes()].concat(),
        7 => {
            bytes = event
                .replacen('{', "{\"padding\":\"", 1)
                .replacen("\"kind\"", &format!("{}\",\"kind\"", "p".repeat(2 << 20)), 1)
                .into_bytes();
        }
        8 => {
            let value: serde_json::Value = serde_json::from_str(event).unwrap();
            bytes = serde_json::to_string_pretty(&value).unwrap().into_bytes();
        }
        9 => bytes = vec![0; rng.usize(1..5000)],
        _ => bytes = event.replacen("\"level\":", "\"level\":1e400,\"level\":", 1).into_bytes(),
    }
    bytes.push(b'\n');
    bytes
}

#[test]
fn standard_input_to_its_end() {
    let house = House::new("stdin");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, u64::MAX, house.seed);
    writer.write(3000);
    house.write_config(crate::process::free_address());
    let output = Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .args(["run", "--file", "-", "--stateless", "-c"])
        .arg(house.path().join("lapwing.yaml"))
        .stdin(fs::File::open(house.path().join("clean.jsonl")).unwrap())
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let came = oracle::alerts(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(came.keys().collect::<Vec<_>>(), house.expected().keys().collect::<Vec<_>>());
}
