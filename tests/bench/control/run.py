#!/usr/bin/env python3
"""Measures the control plane at scale: a real API server, real postern-control replicas, and many simulated sidecars (real streams over mTLS, each
with an SVID of its own) in a process beside them.

  1. A small cluster (1,000 pods and policies), every pod's sidecar connected: latency of changes, 50 changes a second.
  2. It grows tenfold while they are connected: what do they notice of it? Then the same measurements again.
  3. Start with the large cluster; more sidecars; all of them move to the other replica at once, resumed and with full handshakes.

Ten pods are an application. Each application's policies let two others of its namespace in, by two peer sets: so a change of one pod concerns the 20
sidecars that name a set with it, and itself."""

import argparse
import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, os.pardir))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from kit.control import Control  # noqa: E402
from kit.kube import KubeServer  # noqa: E402
from kit.pki import Authority  # noqa: E402
from kit.pods import Network  # noqa: E402
from kit.sidecar import program  # noqa: E402

import report  # noqa: E402

TRUST_DOMAIN = "bench.test"
APPLICATION = 10  # pods


def say(text):
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", file=sys.stderr, flush=True)


def application_of(pod):
    return pod // APPLICATION


def namespace_of(application):
    return f"ns-{application // 10}"  # 100 pods each


def pod_object(index):
    application = application_of(index)
    return {"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": f"pod-{index}", "namespace": namespace_of(application), "labels": {"app": f"app-{application}", "tier": "web"},
                         "annotations": {"postern.dev/injected": "true"}},
            "spec": {"serviceAccountName": "default", "nodeName": f"node-{index % 100}",
                     "containers": [{"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 8080}]}]}}


def address_of(index):
    return f"10.{64 + index // 64000}.{index // 250 % 256}.{index % 250 + 1}"


def policy_object(application, number):
    """One of the policies of an application: it is called by the two before it in its namespace; each policy for a port of its own."""
    first = application // 10 * 10
    before, second = (first + (application - first + 10 - step) % 10 for step in (1, 2))
    space = {"matchLabels": {"kubernetes.io/metadata.name": namespace_of(application)}}
    peers = [{"namespaceSelector": space, "podSelector": {"matchLabels": {"app": f"app-{before}"}}},
             {"namespaceSelector": space, "podSelector": {"matchLabels": {"app": f"app-{second}", "tier": "web"}}}]
    port = 8080 + number
    return {"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": f"app-{application}-{port}", "namespace": namespace_of(application)},
            "spec": {"podSelector": {"matchLabels": {"app": f"app-{application}"}}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": peers, "ports": [{"port": port}]}]}}


class Sidecars:
    """The process of simulated sidecars."""

    def __init__(self, folder, controls, authority, workloads):
        path = f"{folder}/workloads"
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{ns} {name} {uid} default\n" for ns, name, uid in workloads)
        binary = os.path.join(os.path.dirname(program("postern-control")), os.pardir, "tests/bench/control/postern-bench-sidecars")
        self.child = subprocess.Popen([binary, "--control", ",".join(controls), "--workloads", path, "--ca", f"{authority.folder}/ca.pem", "--ca-key",
                                       f"{authority.folder}/ca.key", "--trust-domain", TRUST_DOMAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, bufsize=1)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put(line.split())

    def tell(self, command):
        self.child.stdin.write(command + "\n")

    def wait(self, word, deadline):
        """The next line that begins with the word; updates on the way are dropped."""
        until = time.monotonic() + deadline
        while True:
            line = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            if line[0] == word:
                return line

    def updates(self, quiet, deadline=30.0, enough=None):
        """All updates until none has come for `quiet` seconds, or `enough` sidecars had one: (workload, nanoseconds, bytes)."""
        found, who, until = [], set(), time.monotonic() + deadline
        while time.monotonic() < until and (enough is None or len(who) < enough):
            try:
                line = self.lines.get(timeout=quiet)
            except queue.Empty:
                break
            if line[0] == "update":
                found.append((int(line[1]), int(line[2]), int(line[3])))
                who.add(found[-1][0])
        return found

    def stats(self):
        self.tell("stats")
        names = ("streams", "updates", "bytes", "resources", "resumed", "full", "held", "failed")
        return dict(zip(names, map(int, self.wait("stats", 60)[1:])))

    def close(self):
        self.tell("quit")
        self.child.wait(30)


def rss_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


class Bench:
    def __init__(self, options):
        self.options = options
        self.net = Network("scale")
        self.folder = self.net.folder
        self.authority = Authority(f"{self.folder}/ca", TRUST_DOMAIN)
        self.workloads, self.policies = [], 0
        self.results = {"sizes": {}, **earlier(options), "sidecars": options.sidecars, "many": options.many}

    def start_api_server(self):
        self.server = KubeServer(f"{self.folder}/kube", extra=("--max-requests-inflight=3000", "--max-mutating-requests-inflight=3000"))
        self.api = self.server.api()
        self.api.namespace("postern-system")

    def populate(self, pods, policies):
        """Makes the cluster as large as that; what is there stays."""
        began, first = time.monotonic(), len(self.workloads)
        for number in range(first // 100, (pods + 99) // 100):
            self.api.namespace(f"ns-{number}")
        stored = self.server.api().create_many([pod_object(i) for i in range(first, pods)], threads=8)
        self.workloads += [(item["metadata"]["namespace"], item["metadata"]["name"], item["metadata"]["uid"]) for item in stored]

        def status(start):
            api = self.server.api()
            for i in range(start, pods, 8):
                api.pod_status(f"pod-{i}", namespace_of(application_of(i)), [address_of(i)])
        threads = [threading.Thread(target=status, args=(first + offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        applications, new = range(first // APPLICATION, pods // APPLICATION), policies - self.policies
        each = (new + len(applications) - 1) // len(applications)
        items = [policy_object(application, number) for number in range(each) for application in applications][:new]
        self.server.api().create_many(items, threads=8)
        self.policies = policies
        say(f"{pods} pods and {policies} policies are there after {time.monotonic() - began:.1f} s")

    def new_control(self, name):
        control = Control(f"{self.folder}/{name}", self.server.kubeconfig, self.authority, replica=name,
                          config={"mesh": {"trustDomain": TRUST_DOMAIN, "clusterCidrs": ["10.0.0.0/8"]}, "logLevel": "warning"})
        return control

    def start_control(self, into):
        began = time.monotonic()
        self.control.start()
        into["start_s"] = round(time.monotonic() - began, 2)
        into["control_mb"] = round(rss_mb(self.control.process.pid), 1)
        say(f"everything published {into['start_s']} s after the start; {into['control_mb']} MB")

    def connect(self, count, into):
        """That many streams more."""
        before = self.sidecars.stats()
        began = time.monotonic()
        self.sidecars.tell(f"connect {count}")
        self.sidecars.wait("connected", 180)
        into["connect_s"] = round(time.monotonic() - began, 2)
        stats = self.sidecars.stats()
        into["start_bytes"] = (stats["bytes"] - before["bytes"]) // count
        into["held_bytes"] = stats["held"] // stats["streams"]
        say(f"{count} streams more in step after {into['connect_s']} s; {into['start_bytes']} bytes to each")

    def latency(self, change, rounds):
        """From before the request to the API server until the last of the sidecars that it concerns has it."""
        times, sizes, enough = [], [], None
        for number in range(-2, rounds):  # a pair more: the last of a pair takes back what the first did
            self.sidecars.updates(0.03)
            began = time.monotonic_ns()
            change(number + 2)
            updates = self.sidecars.updates(1.0 if enough is None else 5.0, enough=enough)
            concerned = len({who for who, _, _ in updates})
            if enough is None:
                enough = concerned  # the first round says how many these are, by waiting until nobody else comes
            if not updates or concerned < enough:
                raise RuntimeError(f"change {number}: {concerned} of {enough} sidecars were told")
            if number < 0:
                continue
            times.append((max(at for _, at, _ in updates) - began) / 1e6)
            sizes.append(statistics.mean(size for _, _, size in updates))
        result = {"rounds": rounds, "sidecars": enough, "bytes": round(statistics.mean(sizes)), "min_ms": round(min(times), 1),
                  "median_ms": round(statistics.median(times), 1), "p99_ms": round(percentile(times, 0.99), 1)}
        say(f"latency: {result}")
        return result

    def relabel(self, number):
        """Takes a pod out of its application, or puts it back."""
        index = (number // 2 * 37) % self.options.sidecars
        label = f"app-{application_of(index)}" if number % 2 else "none"
        self.api.label("Pod", f"pod-{index}", {"app": label}, namespace_of(application_of(index)))

    def edit(self, number):
        item = policy_object(number // 2 * 3 % (self.options.sidecars // APPLICATION), 0)
        if number % 2 == 0:
            item["spec"]["ingress"][0]["ports"] = [{"port": 20000 + number}]
        self.api.replace(item)

    def churn(self, seconds, rate=50):
        """That many pods relabelled a second: does the last change arrive as soon as the first?"""
        stop, sent = time.monotonic() + seconds, [0]
        cpu = cpu_seconds(self.control.process.pid)

        def work(which):
            api, number = self.server.api(), which
            while time.monotonic() < stop:
                due = stop - seconds + number / rate
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                index = (number * 37) % self.options.sidecars
                label = f"app-{application_of(index)}" if number // self.options.sidecars % 2 else "none"
                api.patch("Pod", f"pod-{index}", {"metadata": {"labels": {"app": label}}}, namespace_of(application_of(index)))
                sent[0] += 1
                number += 2
        before = self.sidecars.stats()
        threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended, used = time.monotonic_ns(), cpu_seconds(self.control.process.pid) - cpu
        lag = max((at for _, at, _ in self.sidecars.updates(0.5)), default=ended)
        after = self.sidecars.stats()
        result = {"seconds": seconds, "changes_per_s": round(sent[0] / seconds, 1), "updates": after["updates"] - before["updates"],
                  "last_after_ms": round(max(0, lag - ended) / 1e6, 1), "cpu_percent": round(used / seconds * 100, 1)}
        say(f"churn: {result}")
        # As it was: what follows counts on every pod being in its application.
        for index in range(self.options.sidecars):
            self.api.label("Pod", f"pod-{index}", {"app": f"app-{application_of(index)}"}, namespace_of(application_of(index)))
        self.sidecars.updates(1.0)
        return result

    def measure(self, into):
        into["label"] = self.latency(self.relabel, self.options.rounds)
        into["edit"] = self.latency(self.edit, self.options.rounds)
        into["churn"] = self.churn(self.options.seconds)
        into["control_mb_streams"] = round(rss_mb(self.control.process.pid), 1)

    def reconnect(self, replica):
        """All at once, to that replica."""
        before = self.sidecars.stats()
        began = time.monotonic_ns()
        self.sidecars.tell(f"use {replica}")
        self.sidecars.tell("reconnect")
        line = self.sidecars.wait("connected", 240)
        after = self.sidecars.stats()
        result = {"seconds": round((int(line[2]) - began) / 1e9, 2), "resumed": after["resumed"] - before["resumed"],
                  "full": after["full"] - before["full"], "attempts_failed": after["failed"] - before["failed"],
                  "resources_sent_again": after["resources"] - before["resources"]}
        say(f"reconnect: {result}")
        return result

    def run(self):
        self.start_api_server()
        self.control, self.other = self.new_control("one"), self.new_control("two")
        if self.options.part == "reconnect":
            self.populate(*self.options.large)
            self.results["sizes"].setdefault("large", {"pods": self.options.large[0], "policies": self.options.large[1]})
        else:
            self.measure_changes()
        if self.options.part != "changes":
            self.measure_reconnecting(self.results["sizes"]["large"])

    def connect_to(self, workloads):
        return Sidecars(self.folder, [self.control.address, self.other.address], self.authority, workloads)

    def measure_changes(self):
        options, results = self.options, self.results
        small = results["sizes"]["small"] = {"pods": options.small[0], "policies": options.small[1]}
        self.populate(*options.small)
        self.start_control(small)
        self.sidecars = self.connect_to(self.workloads[:options.sidecars])
        self.connect(options.sidecars, small)
        self.measure(small)

        # What the reconnecting part has measured of this size stays.
        large = results["sizes"].setdefault("large", {})
        large.update(pods=options.large[0], policies=options.large[1])
        before = self.sidecars.stats()
        self.populate(*options.large)
        self.sidecars.updates(1.0)
        after = self.sidecars.stats()
        results["growth"] = {"updates": after["updates"] - before["updates"], "bytes": after["bytes"] - before["bytes"],
                             "held_before": before["held"] // options.sidecars, "held_after": after["held"] // options.sidecars}
        say(f"grown: {results['growth']}")
        self.measure(large)
        self.sidecars.close()
        self.control.stop()

    def measure_reconnecting(self, large):
        """Sidecars that have nothing yet, and a control plane that starts; then all of them move."""
        options = self.options
        self.start_control(large)
        self.sidecars = self.connect_to(self.workloads[:options.many])
        self.connect(options.sidecars, large)
        many = self.results["many_at_once"] = {"streams": options.many}
        self.connect(options.many - options.sidecars, many)
        time.sleep(2)  # memory that handshakes used is given back within a second or so
        many["control_mb"] = round(rss_mb(self.control.process.pid), 1)
        many["kb_per_stream"] = round((many["control_mb"] - large["control_mb"]) * 1024 / options.many, 1)
        say(f"{many}")
        self.other.start()
        self.sidecars.updates(1.0)
        many["resumed"] = self.reconnect(1)
        self.sidecars.tell("forget")
        many["full"] = self.reconnect(0)
        self.sidecars.close()


def earlier(options):
    """The numbers of the other part, where only one is measured now."""
    if options.part == "all" or not options.json or not os.path.exists(options.json):
        return {}
    with open(options.json, encoding="ascii") as file:
        return json.load(file)


def pair(text):
    pods, policies = text.split("/")
    return int(pods), int(policies)


def even(text):
    number = int(text)
    if number <= 0 or number % 2:
        raise argparse.ArgumentTypeError(f"expected an even number (each change is taken back), found {text}")
    return number


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=pair, default=(1_000, 1_000), metavar="PODS/POLICIES")
    parser.add_argument("--large", type=pair, default=(10_000, 5_000), metavar="PODS/POLICIES")
    parser.add_argument("--sidecars", type=int, default=1_000, help="streams while changes are measured; at most the pods of the small cluster")
    parser.add_argument("--many", type=int, default=5_000, help="streams that reconnect at once; at most the pods of the large cluster")
    parser.add_argument("--rounds", type=even, default=100, help="changes of each kind; an even number")
    parser.add_argument("--seconds", type=int, default=20, help="of 50 changes a second")
    parser.add_argument("--part", choices=("all", "changes", "reconnect"), default="all",
                        help="changes: 1 and 2 above; reconnect: 3. What stands in --json of the other part is kept")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    parser.add_argument("--svg", metavar="FILE", help="draw the picture of docs/scale.md there")
    parser.add_argument("--from", dest="source", metavar="FILE", help="measure nothing: print and draw the numbers of an earlier --json")
    return parser.parse_args()


def main(options):
    if options.source:
        with open(options.source, encoding="ascii") as file:
            results = json.load(file)
    else:
        if os.geteuid() != 0:
            sys.exit("./dev bench control: needs root, for network namespaces")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        bench = Bench(options)
        try:
            bench.run()
        finally:
            if options.json:
                with open(options.json, "w", encoding="ascii") as out:
                    json.dump(bench.results, out, indent=2)
            bench.net.close()
        results = bench.results
    print(report.tables(results))
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as out:
            out.write(report.picture(results))


if __name__ == "__main__":
    BEGAN = time.monotonic()
    main(parse())
