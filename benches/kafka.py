#!/usr/bin/env python3
"""How fast `lapwing run` takes events in from a topic, beside a bare client that only counts them, in one run.

    cargo build --release --example kafka --example corpus --bin lapwing
    tests/kafka/broker.sh start
    benches/kafka.py target/release/lapwing

Events are those of the corpus (metadata, about 1.2 KB). Both read the same topic in turns; figures are medians. Broker and
client share the machine's cores, so only the ratio says something. Needs the broker of `tests/kafka/broker.sh`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SERVERS = os.environ.get("LAPWING_TEST_KAFKA", "127.0.0.1:19092")
TOOL = os.path.join(os.path.dirname(__file__), "..", "tests", "kafka", "broker.sh")
ROUNDS = 3


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def metric(port, name):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2).read().decode()
    except OSError:
        return 0.0
    lines = (line for line in text.splitlines() if line.startswith(name + "{"))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def cpu(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def take_in(lapwing, folder, topic, messages, members, attempt):
    """Seconds, CPU seconds and peak memory for the whole topic."""
    processes, ports = [], []
    for number in range(members):
        port = 19500 + 10 * attempt + number
        home = os.path.join(folder, f"{attempt}-{members}-{number}")
        os.makedirs(home)
        with open(f"{home}/lapwing.yaml", "w") as config:
            config.write(
                f"state_dir: {home}/state\nserver: {{listen: '127.0.0.1:{port}'}}\n"
                f"inputs: [{{type: kafka, bootstrap_servers: '{SERVERS}', topics: [{topic}], from: start, "
                f"group_id: bench-{attempt}-{members}-{os.getpid()}}}]\n"
                f"outputs: [{{type: file, path: {home}/alerts.jsonl}}]\n"
            )
        log = open(f"{home}/log", "w")
        processes.append(subprocess.Popen([lapwing, "run", "-c", f"{home}/lapwing.yaml"], stderr=log))
        ports.append(port)
    began, done, before = None, 0.0, 0.0
    while done < messages:
        done = sum(metric(port, "lapwing_input_records_total") for port in ports)
        if began is None and done > 0:
            began, before = time.monotonic(), done
        time.sleep(0.02)
    seconds = time.monotonic() - began
    used = sum(cpu(process.pid) for process in processes)
    peak = max(rss(process.pid) for process in processes)
    for process in processes:
        process.terminate()
        process.wait()
    return seconds / (messages - before), used / messages, peak


def main():
    lapwing = sys.argv[1]
    examples = os.path.join(os.path.dirname(lapwing), "examples")
    with tempfile.TemporaryDirectory() as folder:
        corpus = f"{folder}/corpus.jsonl"
        run(f"{examples}/corpus", "--profile", "metadata", "--size", "500MB", "--out", corpus)
        topic = f"bench-{os.getpid()}"
        run(TOOL, "tool", "topics", "--create", "--topic", topic, "--partitions", "3")
        messages = int(run(f"{examples}/kafka", "fill", SERVERS, topic, corpus))
        bare, ours, costs, twos, peaks = [], [], [], [], []
        for attempt in range(ROUNDS):
            bare.append(messages / float(run(f"{examples}/kafka", "count", SERVERS, topic, str(messages))))
            each, cost, peak = take_in(lapwing, folder, topic, messages, 1, attempt)
            ours.append(1 / each)
            costs.append(cost)
            peaks.append(peak)
            twos.append(take_in(lapwing, folder, topic, messages, 2, attempt)[1])
        middle = statistics.median
        print(json.dumps({
            "events": messages,
            "bytes_per_event": round(os.path.getsize(corpus) / messages),
            "bare_per_second": round(middle(bare)),
            "lapwing_per_second": round(middle(ours)),
            "share": round(middle(ours) / middle(bare), 3),
            "cpu_us_per_event": round(middle(costs) * 1e6, 2),
            "cpu_us_per_event_two_members": round(middle(twos) * 1e6, 2),
            "peak_mb": round(max(peaks), 1),
        }))
        run(TOOL, "tool", "topics", "--delete", "--topic", topic)


if __name__ == "__main__":
    main()
