#!/usr/bin/env python3
"""How fast `lapwing run` takes events in from a topic, beside a bare client that only counts them, in one run, and how fast
what waits for a topic is written to it.

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
ROUNDS = 5


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def metric(port, name):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2).read().decode()
    except OSError:
        return 0.0
    lines = (line for line in text.splitlines() if line.startswith(name + "{"))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def threads(pid):
    """CPU seconds by the names of threads."""
    seconds = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as stat:
            name, fields = stat.read().split(" (", 1)[1].rsplit(") ", 1)
        fields = fields.split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        seconds[name] = seconds.get(name, 0) + used
    return seconds


def cpu(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def take_in(lapwing, folder, topic, messages, members, attempt):
    """Seconds and CPU seconds an event, peak memory, and CPU seconds by thread of the first member."""
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
        # Who asks takes time from who is asked: so it is asked seldom, but for the beginning and the end.
        pause = 0.02
        if began is None and done > 0:
            began, before = time.monotonic(), done
        elif began is not None and done > before:
            rest = (messages - done) * (time.monotonic() - began) / (done - before)
            pause = max(pause, 0.7 * rest)
        time.sleep(pause)
    seconds = time.monotonic() - began
    used = sum(cpu(process.pid) for process in processes)
    peak = max(rss(process.pid) for process in processes)
    shares = threads(processes[0].pid)
    for process in processes:
        process.terminate()
        process.wait()
    return seconds / (messages - before), used / messages, peak, shares


def drain(lapwing, folder):
    """Alerts a second from the spool into a topic whose brokers were away while they were found."""
    topic, alerts, port = f"drain-{os.getpid()}", 400_000, 19499
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/prod/pods/web/exec?command=sh&stdin=true&tty=true", "verb": "create",
        "user": {"username": "jane", "groups": ["system:authenticated"]}, "sourceIPs": ["203.0.113.7"],
        "userAgent": "kubectl/v1.31.0", "responseStatus": {"code": 101},
        "objectRef": {"resource": "pods", "namespace": "prod", "name": "web", "apiVersion": "v1", "subresource": "exec"},
        "requestReceivedTimestamp": "2026-03-01T10:00:00.000000Z", "stageTimestamp": "2026-03-01T10:00:00.000000Z",
    }
    with open(f"{folder}/hot.jsonl", "w") as file:
        file.writelines(json.dumps({**event, "auditID": str(number)}) + "\n" for number in range(alerts))
    run(TOOL, "tool", "topics", "--create", "--topic", topic, "--partitions", "3")
    run(TOOL, "stop", "--keep")
    with open(f"{folder}/drain.yaml", "w") as config:
        config.write(
            f"state_dir: {folder}/drain\nserver: {{listen: '127.0.0.1:{port}'}}\n"
            f"inputs: [{{type: file, paths: [{folder}/hot.jsonl], from: start}}]\n"
            f"outputs: [{{type: kafka, bootstrap_servers: '{SERVERS}', topic: {topic}}}]\n"
        )
    log = open(f"{folder}/drain.log", "w")
    process = subprocess.Popen([lapwing, "run", "-c", f"{folder}/drain.yaml"], stderr=log)
    while metric(port, "lapwing_input_records_total") < alerts:
        time.sleep(0.2)
    found = metric(port, "lapwing_alerts_total")
    run(TOOL, "start")
    sent = lambda: metric(port, "lapwing_output_sent_total")
    while (before := sent()) == 0:
        time.sleep(0.02)
    began = time.monotonic()
    while (after := sent()) < found * 0.97:
        time.sleep(0.02)
    seconds = time.monotonic() - began
    process.terminate()
    process.wait()
    return (after - before) / seconds


def main():
    lapwing = sys.argv[1]
    examples = os.path.join(os.path.dirname(lapwing), "examples")
    with tempfile.TemporaryDirectory() as folder:
        corpus = f"{folder}/corpus.jsonl"
        run(f"{examples}/corpus", "--profile", "metadata", "--size", "2GB", "--out", corpus)
        topic = f"bench-{os.getpid()}"
        run(TOOL, "tool", "topics", "--create", "--topic", topic, "--partitions", "3")
        messages = int(run(f"{examples}/kafka", "fill", SERVERS, topic, corpus))
        per_event = round(os.path.getsize(corpus) / messages)
        os.remove(corpus)
        os.sync()  # or the disk is written to for half a minute more
        bare, ours, costs, twos, peaks = [], [], [], [], []
        for attempt in range(ROUNDS):
            bare.append(messages / float(run(f"{examples}/kafka", "count", SERVERS, topic, str(messages))))
            each, cost, peak, shares = take_in(lapwing, folder, topic, messages, 1, attempt)
            ours.append(1 / each)
            costs.append(cost)
            peaks.append(peak)
            twos.append(take_in(lapwing, folder, topic, messages, 2, attempt)[1])
        middle = statistics.median
        print(json.dumps({
            "events": messages,
            "bytes_per_event": per_event,
            "bare_per_second": round(middle(bare)),
            "lapwing_per_second": round(middle(ours)),
            "share": round(middle(ours) / middle(bare), 3),
            "cpu_us_per_event": round(middle(costs) * 1e6, 2),
            "cpu_us_per_event_two_members": round(middle(twos) * 1e6, 2),
            "cpu_us_per_event_by_thread": {
                name: round(used / messages * 1e6, 2) for name, used in shares.items() if used > 0.02
            },
            "peak_mb": round(max(peaks), 1),
            "written_alerts_per_second": round(drain(lapwing, folder)),
        }))
        run(TOOL, "tool", "topics", "--delete", "--topic", topic)


if __name__ == "__main__":
    main()
