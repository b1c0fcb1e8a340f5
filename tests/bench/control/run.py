#!/usr/bin/env python3
"""Measures the control plane at scale: a real API server, a real postern-control, and many simulated sidecars (real streams over mTLS, each with
an SVID of its own) in a process beside it.

Every pod is in one peer set of its application, and each application's pods name the set of the one before: so a change of one pod concerns those
sidecars that may be called by it, and nobody else."""

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
sys.dont_write_bytecode = True

from kit.control import Control  # noqa: E402
from kit.kube import KubeServer  # noqa: E402
from kit.pki import Authority  # noqa: E402
from kit.pods import Network  # noqa: E402
from kit.sidecar import program  # noqa: E402

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


def policy_object(number, applications):
    """The policies of an application: it is called by the one before it in its namespace; more than one for each: other ports."""
    application, port = number % applications, 8080 + number // applications
    before = application - 1 if application % 10 else application + 9
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace_of(before)}},
            "podSelector": {"matchLabels": {"app": f"app-{before}"}}}
    return {"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": f"app-{application}-{port}", "namespace": namespace_of(application)},
            "spec": {"podSelector": {"matchLabels": {"app": f"app-{application}"}}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": [peer], "ports": [{"port": port}]}]}}


class Sidecars:
    """The process of simulated sidecars."""

    def __init__(self, folder, control, authority, workloads):
        path = f"{folder}/workloads"
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{ns} {name} {uid} default\n" for ns, name, uid in workloads)
        binary = os.path.join(os.path.dirname(program("postern-control")), os.pardir, "tests/bench/control/postern-bench-sidecars")
        self.child = subprocess.Popen([binary, "--control", control, "--workloads", path, "--ca", f"{authority.folder}/ca.pem", "--ca-key",
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

    def updates(self, quiet, deadline=30.0):
        """All updates until none has come for `quiet` seconds: (workload, nanoseconds, bytes)."""
        found, until = [], time.monotonic() + deadline
        while time.monotonic() < until:
            try:
                line = self.lines.get(timeout=quiet)
            except queue.Empty:
                break
            if line[0] == "update":
                found.append((int(line[1]), int(line[2]), int(line[3])))
        return found

    def stats(self):
        self.tell("stats")
        names = ("streams", "updates", "bytes", "resources", "resumed", "full")
        return dict(zip(names, map(int, self.wait("stats", 30)[1:])))

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
        self.results = {"pods": options.pods, "policies": options.policies, "sidecars": options.sidecars}

    def populate(self):
        options = self.options
        self.server = KubeServer(f"{self.folder}/kube", extra=("--max-requests-inflight=3000",))
        api = self.server.api()
        applications = options.pods // APPLICATION
        for number in range((applications + 9) // 10):
            api.namespace(f"ns-{number}")
        say(f"creating {options.pods} pods and {options.policies} policies at the API server")
        stored = self.server.api().create_many([pod_object(i) for i in range(options.pods)], threads=8)
        self.workloads = [(item["metadata"]["namespace"], item["metadata"]["name"], item["metadata"]["uid"]) for item in stored]
        apis = threading.local()

        def status(index):
            if not hasattr(apis, "api"):
                apis.api = self.server.api()
            apis.api.pod_status(f"pod-{index}", namespace_of(application_of(index)), [address_of(index)])
        threads = [threading.Thread(target=lambda first=first: [status(i) for i in range(first, options.pods, 8)]) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        api.create_many([policy_object(i, applications) for i in range(options.policies)], threads=8)
        self.api = self.server.api()

    def start_control(self):
        began = time.monotonic()
        self.control = Control(f"{self.folder}/control", self.server.kubeconfig, self.authority,
                               config={"mesh": {"trustDomain": TRUST_DOMAIN, "clusterCidrs": ["10.0.0.0/8"]}})
        self.control.start()
        self.results["start_seconds"] = round(time.monotonic() - began, 2)
        self.results["control_mb_synced"] = round(rss_mb(self.control.process.pid), 1)
        say(f"everything published {self.results['start_seconds']} s after the start; {self.results['control_mb_synced']} MB")

    def connect(self):
        count = self.options.sidecars
        self.sidecars = Sidecars(self.folder, self.control.address, self.authority, self.workloads[:count])
        began = time.monotonic()
        self.sidecars.tell(f"connect {count}")
        self.sidecars.wait("connected", 120)
        self.results["connect_seconds"] = round(time.monotonic() - began, 2)
        stats = self.sidecars.stats()
        self.results["bytes_per_sidecar_at_start"] = stats["bytes"] // count
        self.results["control_mb_connected"] = round(rss_mb(self.control.process.pid), 1)
        self.results["kb_per_stream"] = round((self.results["control_mb_connected"] - self.results["control_mb_synced"]) * 1024 / count, 1)
        say(f"{count} streams in step after {self.results['connect_seconds']} s; {self.results['kb_per_stream']} KB each at the control plane")

    def latency(self, name, change, rounds):
        """From before the request to the API server until the last of the sidecars that it concerns has it."""
        times, sizes, concerned = [], [], []
        for number in range(rounds):
            self.sidecars.updates(0.2)
            began = time.monotonic_ns()
            change(number)
            updates = self.sidecars.updates(0.5)
            if not updates:
                raise RuntimeError(f"{name}: nobody was told of change {number}")
            times.append((max(at for _, at, _ in updates) - began) / 1e6)
            sizes.append(statistics.mean(size for _, _, size in updates))
            concerned.append(len({who for who, _, _ in updates}))
        self.results[name] = {"rounds": rounds, "sidecars": statistics.mean(concerned), "bytes": round(statistics.mean(sizes)),
                              "ms": {"min": round(min(times), 1), "median": round(statistics.median(times), 1), "p99": round(percentile(times, 0.99), 1)}}
        say(f"{name}: {self.results[name]}")

    def relabel(self, number):
        """Takes a pod out of its application, or puts it back."""
        index = (number // 2 * 37) % self.options.sidecars
        label = f"app-{application_of(index)}" if number % 2 else "none"
        self.api.label("Pod", f"pod-{index}", {"app": label}, namespace_of(application_of(index)))

    def edit(self, number):
        item = policy_object(number % min(self.options.policies, self.options.sidecars // APPLICATION), self.options.pods // APPLICATION)
        item["spec"]["ingress"][0]["ports"] = [{"port": 9000 + number}]
        self.api.replace(item)

    def churn(self, seconds=20, rate=50):
        """That many pods relabelled a second: does the last change arrive as soon as the first?"""
        stop, apis = time.monotonic() + seconds, [self.server.api() for _ in range(2)]
        cpu = cpu_seconds(self.control.process.pid)
        sent = [0]

        def work(which):
            number = which
            while time.monotonic() < stop:
                due = stop - seconds + number / rate
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                index = (number * 37) % self.options.sidecars
                apis[which].patch("Pod", f"pod-{index}", {"metadata": {"labels": {"app": f"app-{application_of(index)}" if number // self.options.sidecars % 2 else "none"}}},
                                  namespace_of(application_of(index)))
                sent[0] += 1
                number += 2
        before = self.sidecars.stats()
        threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.monotonic_ns()
        last = self.sidecars.updates(0.5)
        lag = max((at for _, at, _ in last), default=ended)
        after = self.sidecars.stats()
        self.results["churn"] = {"changes_per_second": round(sent[0] / seconds, 1), "lag_after_the_last_ms": round(max(0, lag - ended) / 1e6, 1),
                                 "updates": after["updates"] - before["updates"],
                                 "control_cpu_percent": round((cpu_seconds(self.control.process.pid) - cpu) / seconds * 100, 1)}
        say(f"churn: {self.results['churn']}")

    def reconnect(self):
        before = self.sidecars.stats()
        began = time.monotonic_ns()
        self.sidecars.tell("reconnect")
        line = self.sidecars.wait("connected", 180)
        after = self.sidecars.stats()
        self.results["reconnect"] = {"seconds": round((int(line[2]) - began) / 1e9, 2), "resumed": after["resumed"] - before["resumed"],
                                     "resources_sent_again": after["resources"] - before["resources"]}
        say(f"reconnect: {self.results['reconnect']}")

    def run(self):
        self.populate()
        self.start_control()
        self.connect()
        self.latency("label_change", self.relabel, self.options.rounds)
        self.latency("policy_edit", self.edit, self.options.rounds)
        self.churn()
        self.reconnect()
        self.results["control_mb_end"] = round(rss_mb(self.control.process.pid), 1)
        self.sidecars.close()
        return self.results


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=5_000)
    parser.add_argument("--sidecars", type=int, default=1_000, help="streams")
    parser.add_argument("--rounds", type=int, default=60, help="changes of each kind")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    return parser.parse_args()


if __name__ == "__main__":
    BEGAN = time.monotonic()
    if os.geteuid() != 0:
        sys.exit("./dev bench control: needs root, for network namespaces")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    chosen = parse()
    bench = Bench(chosen)
    try:
        print(json.dumps(bench.run(), indent=2))
        if chosen.json:
            with open(chosen.json, "w", encoding="ascii") as out:
                json.dump(bench.results, out, indent=2)
    finally:
        bench.net.close()
