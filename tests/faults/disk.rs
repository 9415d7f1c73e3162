//! Disks that are full and disks that fail.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::events::Events;
use crate::house::House;
use crate::kills::{can_trace, meddling, while_writing};
use crate::process::{scaled, until};
use crate::receiver::Mode;
use crate::writer::{Rotation, Writer};

const ROTATION: Rotation = Rotation::Rename { compress: false };

/// A small file system in memory.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Mounts it, if that is allowed.
    fn mount(size: &str) -> Option<Tmpfs> {
        let directory = tempfile::Builder::new().prefix("lapwing-small-").tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Tmpfs(directory));
        }
        eprintln!("skipped: mounting a tmpfs needs root");
        None
    }

    /// Leaves only about so many bytes.
    fn fill(&self, but: u64) {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.0.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let free: u64 = text.lines().last().unwrap().trim().parse().unwrap();
        // The program writes meanwhile, and may be the faster one.
        let _ = fs::write(self.0.path().join("ballast"), vec![0; free.saturating_sub(but) as usize]);
    }

    fn relieve(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let mut house = House::new("enospc");
    let Some(disk) = Tmpfs::mount("24m") else { return };
    house.state = disk.0.path().join("state");
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 300), ROTATION, 4 << 20, house.seed);
    for round in 0..scaled(3, 10) {
        // With the receiver down everything must go to the disk.
        house.receiver.set(if round % 2 == 0 { Mode::Refuse } else { Mode::Accept });
        let mut lapwing = house.start();
        lapwing.ready();
        writer.write(100);
        disk.fill(40_000 * round);
        writer.write(1500);
        until("it notices", || lapwing.metric("lapwing_durability_errors_total") > 0.0);
        assert!(lapwing.ended().is_none());
        if round % 3 == 1 {
            house.kill(lapwing);
            // It starts on a full disk, too.
            lapwing = house.start();
            thread::sleep(Duration::from_millis(1500));
            assert!(
                lapwing.ended().is_none(),
                "a full disk does not keep it from starting\n{}",
                house.tail()
            );
        }
        disk.relieve();
        house.receiver.set(Mode::Accept);
        let expected = house.expected();
        house.all_come(&expected);
        house.insist(&expected, &format!("round {round}"));
        house.kill(lapwing);
    }
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

fn failing(name: &'static str, faults: &[(&str, &str)]) {
    if !can_trace() {
        return;
    }
    let mut house = House::new(name);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 60), ROTATION, 1 << 20, house.seed);
    let first = house.settle_in(&mut writer);
    house.kill(first);
    let writer = while_writing(writer, house.seed, || {
        for (calls, how) in faults {
            let trace = house.path().join("trace");
            let mut lapwing = house.start_under(&meddling(calls, how, &trace));
            lapwing.ready();
            house.progress();
            until("a call fails", || {
                assert!(lapwing.ended().is_none(), "{calls} {how} ended it\n{}", house.tail());
                fs::read_to_string(&trace).unwrap().contains("(INJECTED)")
            });
            house.progress();
            house.progress();
            house.kill(lapwing);
        }
    });
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

#[test]
fn failed_syncs_are_not_trusted() {
    failing(
        "eio-sync",
        &[
            ("fdatasync,fsync", "error=EIO:when=4"),
            ("fdatasync,fsync", "error=EIO:when=5..9"),
            ("fdatasync,fsync", "error=EIO:when=3+3"),
        ],
    );
}

#[test]
fn failed_writes_are_repeated_elsewhere() {
    failing(
        "eio-write",
        &[
            ("pwrite64", "error=EIO:when=6..8"),
            ("pwrite64", "error=ENOSPC:when=5+4"),
            ("rename,renameat,renameat2", "error=EIO:when=1..3"),
        ],
    );
}
