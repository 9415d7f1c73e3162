//! Receivers that fail in every way that receivers fail in, for a moment or for long.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::events::Events;
use crate::house::{House, rounded};
use crate::oracle;
use crate::process::{scaled, until};
use crate::receiver::{Mode, Receiver, Taken};
use crate::writer::{Rotation, Writer};

const ROTATION: Rotation = Rotation::Rename { compress: false };

#[test]
fn a_receiver_that_fails_in_every_way() {
    let mut house = House::new("receiver-faults");
    // It loses acknowledgements on purpose.
    house.most_duplicates = Some(scaled(100, 1000));
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), ROTATION, 1 << 20, house.seed);
    let lapwing = house.settle_in(&mut writer);
    let modes = [
        Mode::Refuse,
        Mode::Hang,
        Mode::Reset,
        Mode::Status(500, None),
        Mode::Status(503, Some(1)),
        Mode::Status(429, Some(1)),
        Mode::TakeAndDrop,
        Mode::TakeAndStammer,
        Mode::Slow(Duration::from_millis(30)),
        Mode::Moody,
    ];
    for _ in 0..scaled(1, 10) {
        for mode in modes {
            house.receiver.set(mode);
            writer.write(200);
            thread::sleep(Duration::from_millis(700));
            house.receiver.set(Mode::Accept);
            house.all_come(&house.expected());
            house.insist(&house.expected(), &format!("{mode:?}"));
        }
    }
    house.finish(lapwing, writer.rotations);
}

#[test]
fn a_dead_output_delays_no_other() {
    let mut house = House::new("dead-output");
    let dead = Receiver::new(house.seed);
    dead.set(Mode::Hang);
    house.config =
        format!("outputs: [{{type: http, preset: webhook, name: dead, url: \"{}\"}}]\n", dead.url());
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 200), ROTATION, 1 << 20, house.seed);
    let lapwing = house.settle_in(&mut writer);
    writer.write(2000);
    let expected = house.expected();
    house.all_come(&expected);
    assert!(dead.taken().is_empty());
    dead.set(Mode::Accept);
    until("the other one gets everything too", || {
        oracle::compare(&expected, &dead.taken()).missing.is_empty()
    });
    house.finish(lapwing, writer.rotations);
}

/// The file output takes alerts in the order in which they were raised. A receiver that was away gets them in that order too
/// if they are sent one after another; how far apart several at once may come is printed.
#[test]
fn a_receiver_that_was_down_for_long() {
    let mut house = House::new("outage");
    let file = house.path().join("alerts.jsonl");
    let ordered = Receiver::new(house.seed);
    house.config = format!(
        "outputs: [{{type: file, path: \"{}\"}}, {{type: http, preset: webhook, name: ordered, concurrency: 1, url: \"{}\"}}]\n",
        file.display(),
        ordered.url()
    );
    ordered.set(Mode::Refuse);
    house.receiver.set(Mode::Refuse);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 400), ROTATION, 8 << 20, house.seed);
    let mut lapwing = house.start();
    lapwing.ready();
    let began = Instant::now();
    let mut rss: f64 = 0.0;
    while began.elapsed() < Duration::from_secs(scaled(8, 600)) {
        writer.write(400);
        rss = rss.max(lapwing.rss());
        thread::sleep(Duration::from_millis(scaled(600, 1000)));
    }
    let expected = house.expected();
    let written = || oracle::alerts(&std::fs::read_to_string(&file).unwrap_or_default()).len();
    until("the file has them all", || written() >= expected.len());
    let waited = lapwing.metric("lapwing_spool_bytes");
    let back = Instant::now();
    ordered.set(Mode::Accept);
    house.receiver.set(Mode::Accept);
    house.all_come(&expected);
    let taken = house.receiver.taken();
    let first = taken.first().expect("alerts come").at;
    let rate = taken.len() as f64 / taken.last().unwrap().at.duration_since(first).as_secs_f64().max(0.001);
    house.figures.insert("down_seconds".into(), rounded(back.duration_since(began).as_secs_f64()).into());
    house
        .figures
        .insert("until_first_seconds".into(), rounded(first.duration_since(back).as_secs_f64()).into());
    house.figures.insert("drained_per_second".into(), rate.round().into());
    house.figures.insert("rss_mb".into(), rounded(rss.max(lapwing.rss())).into());
    until("the other receiver has them all", || {
        oracle::compare(&expected, &ordered.taken()).missing.is_empty()
    });
    let lines = std::fs::read_to_string(&file).unwrap();
    let raised: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let raised: Vec<&str> = raised.iter().filter_map(|alert| alert["uuid"].as_str()).collect();
    let place: HashMap<&str, usize> = raised.iter().enumerate().map(|(at, uuid)| (*uuid, at)).collect();
    let apart = in_order(&taken).iter().enumerate().map(|(at, uuid)| at.abs_diff(place[uuid.as_str()])).max();
    house.figures.insert("out_of_order_by".into(), apart.into());
    assert_eq!(in_order(&ordered.taken()), raised, "the order is kept");
    house.figures.insert("spool_bytes_while_down".into(), waited.into());
    house.finish(lapwing, writer.rotations);
    assert!(waited > 0.0, "what waits is to be seen");
}

/// Ids as they came for the first time.
fn in_order(taken: &[Taken]) -> Vec<String> {
    let mut seen = HashSet::new();
    taken.iter().map(|taken| taken.uuid.clone()).filter(|uuid| seen.insert(uuid.clone())).collect()
}

#[test]
fn killed_while_the_receiver_is_down() {
    let mut house = House::new("kill-in-outage");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 200), ROTATION, 1 << 20, house.seed);
    let first = house.settle_in(&mut writer);
    house.kill(first);
    for _ in 0..scaled(4, 20) {
        house.receiver.set(Mode::Refuse);
        let mut lapwing = house.start();
        lapwing.ready();
        writer.write(300);
        thread::sleep(Duration::from_millis(300));
        house.kill(lapwing);
    }
    house.receiver.set(Mode::Accept);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}
