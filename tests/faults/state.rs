//! The state directory: damaged, shared, not writable.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::client;
use crate::events::Events;
use crate::house::House;
use crate::process::{PATIENCE, scaled, until};
use crate::receiver::Mode;
use crate::writer::{Rotation, Writer};

const ROTATION: Rotation = Rotation::Rename { compress: false };

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Damages a file, and says how.
fn damage(path: &Path, how: u8, rng: &mut fastrand::Rng) -> String {
    let length = fs::metadata(path).unwrap().len();
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = rng.u64(0..length.max(1));
    let said = match how {
        0 => {
            for _ in 0..rng.u8(1..6) {
                let at = rng.u64(0..length.max(1));
                let mut byte = [0];
                file.seek(SeekFrom::Start(at)).unwrap();
                if file.read(&mut byte).unwrap() == 1 {
                    file.seek(SeekFrom::Start(at)).unwrap();
                    file.write_all(&[byte[0] ^ (1 << rng.u8(0..8))]).unwrap();
                }
            }
            "some bits are turned".to_owned()
        }
        1 => {
            file.set_len(at).unwrap();
            format!("cut to {at} bytes")
        }
        2 => {
            fs::remove_file(path).unwrap();
            "removed".to_owned()
        }
        3 => {
            file.set_len(0).unwrap();
            "emptied".to_owned()
        }
        4 => {
            file.seek(SeekFrom::Start(at)).unwrap();
            let zeros = vec![0; rng.usize(1..5000).min((length - at) as usize)];
            file.write_all(&zeros).unwrap();
            format!("{} zeros at {at}", zeros.len())
        }
        _ => {
            let mut other = vec![0; rng.usize(1..3000)];
            rng.fill(&mut other);
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(&other).unwrap();
            format!("{} bytes of noise at its end", other.len())
        }
    };
    format!("{} of {length} bytes: {said}", path.file_name().unwrap().display())
}

/// Keeps what the damage was done to, for whoever has to find out what it did.
fn keep_copy(files: &[PathBuf], to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for file in files {
        fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// The file that is followed is still there, so everything can be found again.
#[test]
fn damaged_state_is_never_fatal() {
    let mut house = House::new("damage");
    house.most_duplicates = Some(usize::MAX);
    let mut rng = fastrand::Rng::with_seed(house.seed);
    // No rotation: a position that is lost sends the program back to the beginning of the file.
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 150), ROTATION, u64::MAX, house.seed);
    let mut how = 0_u32;
    for round in 0..scaled(14, 200) {
        house.receiver.set(if rng.bool() { Mode::Refuse } else { Mode::Accept });
        let mut lapwing = house.start();
        writer.write(60);
        lapwing.ready();
        thread::sleep(Duration::from_millis(rng.u64(0..600)));
        if rng.bool() {
            house.kill(lapwing);
        } else {
            _ = lapwing.stop();
        }
        let all = files(&house.state);
        keep_copy(&all, &house.path().join("state-before-damage"));
        assert!(!all.is_empty(), "something is kept");
        for _ in 0..rng.u8(1..3) {
            let path = &all[rng.usize(0..all.len())];
            if path.exists() {
                eprintln!("{}: round {round}: {}", house.name, damage(path, (how % 6) as u8, &mut rng));
                how += 1;
            }
        }
        house.receiver.set(Mode::Accept);
        let mut lapwing = house.start();
        lapwing.ready();
        let expected = house.expected();
        house.all_come(&expected);
        house.insist(&expected, &format!("round {round}"));
        _ = lapwing.stop();
    }
    house.figures.insert("damages".into(), how.into());
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

/// Where an output stands is lost while alerts wait for it: it must get them all the same.
#[test]
fn a_lost_cursor_costs_no_alert() {
    let mut house = House::new("cursor");
    house.most_duplicates = Some(usize::MAX);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 150), ROTATION, u64::MAX, house.seed);
    let lapwing = house.settle_in(&mut writer);
    house.receiver.set(Mode::Refuse);
    writer.write(400);
    until("alerts wait", || lapwing.metric("lapwing_input_records_total") > 400.0);
    _ = lapwing.stop();
    for path in files(&house.state) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("cursor") {
            fs::remove_file(path).unwrap();
        }
    }
    house.receiver.set(Mode::Accept);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

/// Whole directories come and go too.
#[test]
fn a_state_directory_that_is_gone_is_made_anew() {
    let mut house = House::new("state-gone");
    house.most_duplicates = Some(usize::MAX);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 150), ROTATION, u64::MAX, house.seed);
    for _ in 0..2 {
        let lapwing = house.start();
        writer.write(200);
        house.progress();
        house.kill(lapwing);
        fs::remove_dir_all(&house.state).unwrap();
    }
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

/// What is taken away from a running process is told of, and alerts go on.
#[test]
fn a_state_directory_removed_while_it_is_in_use_is_told_of() {
    let mut house = House::new("state-removed");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), ROTATION, u64::MAX, house.seed);
    let lapwing = house.settle_in(&mut writer);
    fs::remove_dir_all(&house.state).unwrap();
    until("the log tells of it", || house.said().contains("state directory was removed or replaced"));
    until("the run is not ready", || {
        client::get(lapwing.server, "/readyz")
            .is_some_and(|(code, why)| code == 503 && why.contains("removed"))
    });
    until("an alert tells of it", || {
        house.receiver.taken().iter().any(|taken| taken.alert["detector"] == "integrity/state-damaged")
    });
    writer.write(300);
    house.all_come(&house.expected());
    assert_eq!(house.said().matches("state directory was removed or replaced").count(), 1);
    house.finish(lapwing, writer.rotations);
}

#[test]
fn one_process_at_a_time() {
    let mut house = House::new("two-processes");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), ROTATION, 1 << 20, house.seed);
    let mut first = house.start();
    first.ready();
    writer.write(300);
    let mut second = house.start();
    let status = second.wait(PATIENCE);
    assert_eq!(status.code(), Some(3), "the second one is refused\n{}", house.tail());
    assert!(house.tail().contains("another process"), "{}", house.tail());
    writer.write(300);
    house.finish(first, writer.rotations);
}

#[test]
fn without_a_state_directory_it_goes_on_and_says_so() {
    let mut house = House::new("no-state");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), ROTATION, 1 << 20, house.seed);
    // Below a file no directory can be made, not even by root.
    let file = house.path().join("file");
    fs::write(&file, "").unwrap();
    house.state = file.join("state");
    let mut lapwing = house.start();
    lapwing.ready();
    writer.write(600);
    until("it warns", || house.said().contains("--stateless"));
    house.finish(lapwing, writer.rotations);
}
