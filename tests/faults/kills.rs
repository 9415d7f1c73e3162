//! `kill -9` at random instants while the file is written to and rotated, and at chosen system calls.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::events::Events;
use crate::house::House;
use crate::process::{is_long, scaled, soon};
use crate::receiver::Mode;
use crate::writer::{Rotation, Writer};

/// Bytes after which the file is rotated.
const LIMIT: u64 = 1 << 20;

/// Lets somebody write while something happens, and returns the writer with all that it has written.
pub(crate) fn while_writing(mut writer: Writer, seed: u64, what: impl FnOnce()) -> Writer {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(seed ^ 0x3717e);
            while !done.load(Ordering::Relaxed) {
                writer.write(rng.usize(1..30));
                thread::sleep(Duration::from_millis(rng.u64(0..12)));
                if rng.u16(0..400) == 0 {
                    writer.rotate();
                    writer.write(1);
                    writer.rotate();
                }
            }
            writer
        });
        // If it panics the writer must be told all the same, or the scope waits for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        done.store(true, Ordering::Relaxed);
        let mut writer = writing.join().unwrap();
        // However short it was, there is something to be found.
        writer.write(500);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        writer
    })
}

fn check(name: &'static str, rotation: Rotation, cycles: u64) {
    let mut house = House::new(name);
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 20), rotation, LIMIT, house.seed);
    let first = house.settle_in(&mut writer);
    house.kill(first);
    let writer = while_writing(writer, house.seed, || {
        for cycle in 0..cycles {
            let moody = rng.u8(0..4) == 0;
            house.receiver.set(if moody { Mode::Moody } else { Mode::Accept });
            let lapwing = house.start();
            if cycle % 4 == 3 {
                // Lives that are all too short would never get anywhere.
                house.progress();
            }
            thread::sleep(Duration::from_millis(1 << rng.u32(0..11)) * rng.u32(50..100) / 100);
            house.kill(lapwing);
            if rng.u8(0..3) == 0 {
                thread::sleep(Duration::from_millis(rng.u64(0..1000)));
            }
        }
    });
    house.receiver.set(Mode::Accept);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

#[test]
fn killed_under_rotation_with_compression() {
    check("kill-rename-gzip", Rotation::Rename { compress: true }, scaled(20, 200));
}

#[test]
fn killed_under_rotation() {
    check("kill-rename", Rotation::Rename { compress: false }, scaled(8, 200));
}

#[test]
fn killed_under_copytruncate() {
    check("kill-copytruncate", Rotation::CopyTruncate { append: true }, scaled(8, 100));
}

#[test]
fn killed_under_copytruncate_of_a_writer_without_append() {
    check("kill-copytruncate-holes", Rotation::CopyTruncate { append: false }, scaled(6, 100));
}

/// The first start begins at the end of the file. From then on nothing may be passed over, so that place must be kept.
#[test]
fn killed_right_after_the_first_start() {
    let mut house = House::new("kill-first");
    house.from = "checkpoint";
    let rotation = Rotation::Rename { compress: false };
    let mut writer = Writer::new(house.path(), Events::new(house.seed, 100), rotation, u64::MAX, house.seed);
    // What is there before holds nothing to be found.
    writer.append(Events::new(house.seed + 1, 0).take(200).concat().as_bytes());
    let mut first = house.start();
    first.ready();
    house.kill(first);
    writer.write(500);
    writer.rotate();
    writer.write(500);
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}

/// True if strace is there and may trace.
pub(crate) fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: strace is not installed or may not trace (apt-get install strace)");
    }
    can
}

/// `strace` that meddles with system calls. It runs beside the program, which keeps its process id. It counts calls of each
/// thread apart; with `--seccomp-bpf` it would count wrongly.
pub(crate) fn meddling(calls: &str, how: &str, trace: &Path) -> Vec<String> {
    let mut arguments = ["strace", "-f", "-D", "-o"].map(str::to_owned).to_vec();
    arguments.push(trace.to_str().unwrap().to_owned());
    arguments.extend(["-e".to_owned(), format!("trace={calls}")]);
    arguments.extend(["-e".to_owned(), format!("inject={calls}:{how}")]);
    arguments
}

#[test]
fn killed_at_the_nth_system_call() {
    if !can_trace() {
        return;
    }
    let renames = "rename,renameat,renameat2";
    let mut cases = vec![
        ("fdatasync", 1),
        ("fdatasync", 4),
        ("pwrite64", 1),
        ("pwrite64", 9),
        (renames, 1),
        ("fsync", 1),
    ];
    if is_long() {
        let calls = ["fdatasync", "fsync", "pwrite64", renames, "unlink,unlinkat", "ftruncate,fallocate"];
        cases.extend(calls.iter().flat_map(|call| [2, 3, 5, 7, 12, 25, 60].map(|nth| (*call, nth))));
    }
    let mut house = House::new("kill-at-call");
    let mut reached = 0;
    let mut writer = Writer::new(
        house.path(),
        Events::new(house.seed, 40),
        Rotation::Rename { compress: false },
        LIMIT,
        house.seed,
    );
    let first = house.settle_in(&mut writer);
    house.kill(first);
    let writer = while_writing(writer, house.seed, || {
        for (call, nth) in cases {
            let mut lapwing = house.start_under(&meddling(
                call,
                &format!("signal=KILL:when={nth}"),
                Path::new("/dev/null"),
            ));
            let ended = soon(Duration::from_millis(scaled(4000, 8000)), || lapwing.ended().is_some());
            reached += u64::from(ended);
            house.kill(lapwing);
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(reached >= 3, "hardly any of the system calls was reached: {reached}\n{}", house.tail());
    house.figures.insert("reached".to_owned(), reached.into());
    let lapwing = house.start();
    house.finish(lapwing, writer.rotations);
}
