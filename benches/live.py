#!/usr/bin/env python3
"""Measures `lapwing run`: latency of the tail, sustained rate, rest, HTTP intake, and draining after an outage.

Usage: benches/live.py PATH/TO/lapwing [OUTAGE_SECONDS]

Prints one line of JSON a figure. Everything happens on loopback and in a temporary directory. Needs Python 3.9 and nothing else.
"""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

LAPWING = os.path.abspath(sys.argv[1])
OUTAGE = float(sys.argv[2]) if len(sys.argv) > 2 else 60
TICKS = os.sysconf("SC_CLK_TCK")
PAD = "x" * 560


def event(n, alerting=False):
    """One audit event of about 1.2 KB; an alerting one binds cluster-admin."""
    at = 1_772_359_200 + n / 1000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{n % 1000:03d}000Z"
    if alerting:
        verb, uri = "create", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        target = {"resource": "clusterrolebindings", "apiGroup": "rbac.authorization.k8s.io", "apiVersion": "v1", "name": f"b{n}"}
        code, body = 201, {"requestObject": {"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
                           "metadata": {"name": f"b{n}"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                           "name": "cluster-admin"}, "subjects": [{"kind": "User", "name": "mallory"}]}}
    else:
        verb, uri = "update", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
        target = {"resource": "leases", "namespace": "kube-node-lease", "name": "node-1", "apiGroup": "coordination.k8s.io", "apiVersion": "v1"}
        code, body = 200, {"annotations": {"pad": PAD}}
    return json.dumps({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": f"0000-{n}",
                       "stage": "ResponseComplete", "requestURI": uri, "verb": verb,
                       "user": {"username": "dana" if alerting else "system:node:node-1", "groups": ["system:authenticated"]},
                       "sourceIPs": ["10.0.4.2"], "userAgent": "kubectl/v1.34.0", "objectRef": target,
                       "responseStatus": {"metadata": {}, "code": code}, "requestReceivedTimestamp": stamp,
                       "stageTimestamp": stamp, **body}, separators=(",", ":")) + "\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Run:
    """A live run with one output."""

    def __init__(self, folder, output, extra=""):
        self.port, self.http = free_port(), free_port()
        self.log = os.path.join(folder, "audit.log")
        open(self.log, "a").close()
        config = os.path.join(folder, "lapwing.yaml")
        with open(config, "w") as f:
            f.write(f"state_dir: {folder}/state\nserver: {{listen: '127.0.0.1:{self.port}'}}\n"
                    f"inputs:\n  - {{type: file, name: audit, paths: ['{self.log}'], from: start}}\n"
                    f"  - {{type: http, name: hook, listen: '127.0.0.1:{self.http}'}}\noutputs:\n  - {output}\n{extra}")
        self.process = subprocess.Popen([LAPWING, "run", "-c", config], stdout=subprocess.PIPE,
                                        stderr=open(os.path.join(folder, "err.log"), "w"))
        while b'"ready":true' not in self.get("/readyz"):
            time.sleep(0.02)

    def get(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().read()
        except OSError:
            return b""

    def metric(self, name):
        return sum(float(line.split()[-1]) for line in self.get("/metrics").decode().splitlines() if line.startswith(name))

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self):
        return next(int(line.split()[1]) / 1024 for line in open(f"/proc/{self.process.pid}/status") if line.startswith("VmRSS"))

    def end(self):
        self.process.terminate()
        self.process.wait(30)


def say(**figure):
    print(json.dumps(figure), flush=True)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def latency(seconds=20):
    """1,000 events a second, one in twenty alerting: from the end of the write to the alert on standard output."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, "{type: stdout}")
        written, seen = {}, {}

        def read():
            for line in run.process.stdout:
                now = time.perf_counter()
                seen.setdefault(json.loads(line)["k8s"]["audit_id"], now)

        threading.Thread(target=read, daemon=True).start()
        with open(run.log, "ab", buffering=0) as log:
            start = time.perf_counter()
            for n in range(seconds * 1000):
                alerting = n % 20 == 0
                line = event(n, alerting).encode()
                wait = start + n / 1000 - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                log.write(line)
                if alerting:
                    written[f"0000-{n}"] = time.perf_counter()
        time.sleep(1)
        run.end()
        millis = [(seen[key] - at) * 1000 for key, at in written.items() if key in seen]
        say(what="tail latency at 1,000 events/s", alerts=len(written), missing=len(written) - len(millis),
            p50_ms=round(percentile(millis, 0.5), 2), p99_ms=round(percentile(millis, 0.99), 2), max_ms=round(max(millis), 2))


def sustained(seconds=10, rate=50_000):
    """50,000 events a second of 1.2 KB: the CPU time that they take, and the memory."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, "{type: stdout}")
        threading.Thread(target=lambda: [None for _ in run.process.stdout], daemon=True).start()
        chunk = "".join(event(n, n == 0) for n in range(rate // 100)).encode()
        idle = run.rss()
        cpu, start, peak = run.cpu(), time.perf_counter(), 0
        with open(run.log, "ab", buffering=0) as log:
            for step in range(seconds * 100):
                wait = start + step / 100 - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                log.write(chunk)
                if step % 50 == 0:
                    peak = max(peak, run.rss())
        total = seconds * rate
        while run.metric('lapwing_input_records_total{input="audit"') < total:
            time.sleep(0.01)
        took = time.perf_counter() - start
        say(what="sustained tail", bytes_per_event=len(chunk) // (rate // 100), events_per_s=round(total / took),
            share_of_a_core=round((run.cpu() - cpu) / took, 3), rss_mb_busy=round(max(peak, run.rss()), 1), rss_mb_before=round(idle, 1))
        run.end()


def rest(seconds=20):
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, "{type: stdout}")
        time.sleep(2)
        cpu = run.cpu()
        time.sleep(seconds)
        say(what="idle", cpu_percent=round((run.cpu() - cpu) / seconds * 100, 2), rss_mb=round(run.rss(), 1))
        run.end()


def intake(seconds=10, clients=4, batch=400):
    """EventLists of 400, four clients, one alerting event a batch, so that every answer waits for a sync."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, f"{{type: file, path: {folder}/alerts.jsonl}}")
        counts, stop = [0] * clients, time.perf_counter() + seconds

        def client(me):
            connection = http.client.HTTPConnection("127.0.0.1", run.http)
            calm = ",".join(event(n).strip() for n in range(batch - 1))
            n = me
            while time.perf_counter() < stop:
                n += clients
                body = '{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[' + event(n, True).strip() + "," + calm + "]}"
                connection.request("POST", "/k8s-audit", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                counts[me] += batch

        start = time.perf_counter()
        threads = [threading.Thread(target=client, args=(me,)) for me in range(clients)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        took = time.perf_counter() - start
        say(what="HTTP intake with a sync before each 2xx", events_per_s=round(sum(counts) / took), clients=clients, batch=batch)
        run.end()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    got = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        uuid = body[9:45]
        Receiver.got[uuid] = Receiver.got.get(uuid, 0) + 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def outage(seconds, rate=200):
    """A receiver that is down for a while, then back: what is missing, how fast the backlog drains, and the memory."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        run = Run(folder, f"{{type: http, preset: falcosidekick, url: 'http://127.0.0.1:{port}/'}}")
        total = int(seconds * rate)
        rss = [run.rss()]
        with open(run.log, "ab", buffering=0) as log:
            start = time.perf_counter()
            for n in range(total):
                wait = start + n / rate - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                log.write(event(n, True).encode())
                if n % rate == 0:
                    rss.append(run.rss())
        time.sleep(1)
        alerts = run.metric("lapwing_alerts_total")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while not Receiver.got:
            time.sleep(0.01)
        back = time.perf_counter()
        while sum(Receiver.got.values()) < alerts:
            time.sleep(0.02)
        took = time.perf_counter() - back
        rss.append(run.rss())
        say(what="receiver down, then back", down_s=seconds, alerts=int(alerts), missing=int(alerts) - len(Receiver.got),
            sent_twice=sum(Receiver.got.values()) - len(Receiver.got), drained_per_s=round(alerts / took), rss_mb=[round(r, 1) for r in (rss[0], max(rss))])
        run.end()


if __name__ == "__main__":
    rest()
    latency()
    sustained()
    intake()
    outage(OUTAGE)
