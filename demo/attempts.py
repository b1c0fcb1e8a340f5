"""An attempt to connect, what came of it, and what the access logs of both sides say: a row of the table."""

import contextlib
import dataclasses
import json
import socket
import time

from kit.waiting import patience, wait_until

REQUESTS = {
    80: b"GET / HTTP/1.0\r\n\r\n",
    8080: b"GET /catalogue HTTP/1.0\r\n\r\n",
    6379: b"PING\r\nQUIT\r\n",
}
ANSWERS = {80: b"HTTP/1.1 200", 8080: b"HTTP/1.0 200", 6379: b"+PONG"}


@dataclasses.dataclass
class Row:
    """What was expected and what was seen. `by` is what the deciding policy, or the reason, must be."""

    source: str
    destination: str
    expected: str
    by: str
    seen: str = ""
    decided: str = ""
    records: list = dataclasses.field(default_factory=list)  # (pod, record)
    wrong: list = dataclasses.field(default_factory=list)    # what differs beside the two columns

    @property
    def as_expected(self):
        return self.seen == self.expected and self.decided == self.by and not self.wrong


def rules(record, pending=False):
    """The rule or the lack of one that a record names: "frontend-allow ingress[0].from[0]"."""
    prefix = "policy.pending" if pending else "policy"
    side = {"inbound": ("ingress", "from"), "outbound": ("egress", "to")}[record["direction"]]
    allowed = record.get("policy.pending" if pending else "policy.enforced")
    if allowed:
        def text(rule):
            peer = f".{side[1]}[{rule['peer_index']}]" if "peer_index" in rule else ""
            return f"{rule['name']} {rule['direction']}[{rule['rule_index']}]{peer}"
        return ", ".join(map(text, allowed))
    basis = record.get(f"{prefix}_basis" if pending else "policy.basis", "")
    if basis == "no_rule":
        isolating = record.get(f"{prefix}_isolating" if pending else "policy.isolating", [])
        return f"no {side[0]} rule in " + ", ".join(p["name"] for p in isolating)
    return f"{basis} ({side[0]})" if basis else ""


def decision(record):
    """What decided on one side: a rule, the lack of one, or the reason where policy was not even asked."""
    said = rules(record)
    if not said:
        return "/".join(filter(None, (record.get("close.reason"), record.get("close.detail"))))
    if record["verdict"] == "AUDIT":
        said += f"; pending: {record['policy.pending_verdict']}, {rules(record, pending=True)}"
    return said


def decided_by(records):
    """The side that refused, or what both sides allowed it by."""
    for record in records:
        if "DROPPED" in (record["verdict"], record.get("policy.enforced_verdict")):
            return decision(record)
    return " + ".join(decision(record) for record in records)


class Witness:
    """Makes attempts and finds their records."""

    def __init__(self, application):
        self.application = application

    def _record(self, pod, what, since=0, **fields):
        def look():
            found = self.application.sidecars[pod].records(**fields)
            return found[since] if len(found) > since else None
        def others():
            latest = "\n".join(json.dumps(record) for record in self.application.sidecars[pod].records()[-5:])
            return f"{what} in the access log of {pod}; the latest there:\n{latest}"
        return wait_until(look, 10, others)

    def pair(self, source, destination, outbound):
        """The record of the other side, found by the ID that both derive; None if nothing left the source."""
        if "connection.id" not in outbound:
            return [outbound]
        same = {"direction": "inbound", "connection.id": outbound["connection.id"], "connection.stream": outbound.get("connection.stream")}
        return [outbound, self._record(destination, f"the connection {outbound['connection.id']} from {source}", **same)]

    def outbound_of(self, pod, s):
        """The record of the connection that was made with this socket."""
        address, port = s.getsockname()[:2]
        return lambda: self._record(pod, f"the connection from {address} port {port}",
                                    **{"direction": "outbound", "source.address": address, "source.port": port})

    def bound_socket(self, source, v6):
        """A socket of the pod that has its port before it connects: a refusal may come sooner than connect() returns."""
        pod = self.application.pods[source]
        s = pod.socket(socket.AF_INET6 if v6 else socket.AF_INET)
        s.settimeout(patience(10))
        s.bind((pod.v6 if v6 else pod.v4, 0))
        return s

    def see(self, row, seen, records):
        """Fills in what was seen. records: (pod, record)."""
        row.seen, row.records = seen, records
        row.decided = decided_by([record for _, record in records])
        return row

    def attempt(self, source, destination, port, expected, by, *, v6=False):
        """One connection from the pod's application to another pod: a request, and its answer or none."""
        to = self.application.pods[destination]
        row = Row(source, f"{destination}:{port}" + (" (IPv6)" if v6 else ""), expected, by)
        before = self.application.sidecars[destination].records(direction="inbound")
        with self.bound_socket(source, v6) as s:
            outbound = self.outbound_of(source, s)
            answer = b""
            with contextlib.suppress(ConnectionError):
                s.connect((to.v6 if v6 else to.v4, port))
                s.sendall(REQUESTS[port])
                while more := s.recv(65536):
                    answer += more
        seen = "allowed" if answer.startswith(ANSWERS[port]) else "refused" if not answer else f"{answer[:20]!r}"
        records = self.pair(source, destination, outbound())
        if len(records) == 1 and self.application.sidecars[destination].records(direction="inbound") != before:
            row.wrong.append(f"{destination} has heard of it")
        return self.see(row, seen, list(zip((source, destination), records)))

    def chain(self, first, expected_by):
        """A request through several pods, each a connection of its own: rows for all of them. `first` makes the request and says
        whether its answer was the right one; expected_by: (source, destination, port, by)."""
        marks = {hop: len(self._between(*hop[:2])) for hop in expected_by}
        answered = first()
        rows = []
        for hop in expected_by:
            source, destination, port, by = hop
            outbound = wait_until(lambda: self._between(source, destination)[marks[hop]:], 10, f"a connection from {source} to {destination}")[0]
            records = self.pair(source, destination, outbound)
            passed = answered and all(r["verdict"] == "FORWARDED" and r["bytes_recv"] > 0 for r in records)
            v6 = " (IPv6)" if outbound["network.type"] == "ipv6" else ""
            row = Row(source, f"{destination}:{port}{v6}", "allowed", by)
            rows.append(self.see(row, "allowed" if passed else "refused", list(zip((source, destination), records))))
        return rows

    def _between(self, source, destination):
        return self.application.sidecars[source].records(**{"direction": "outbound", "destination.k8s.pod": self.application.names[destination]})

    def past_the_sidecar(self, what, port, by, *credentials):
        """The intruder connects to backend with no sidecar of its own in between, and presents these credentials."""
        application = self.application
        row = Row(f"intruder, {what}", f"backend:{port}", "refused", by)
        accepted = application.accepted_by_backend()
        own = len(application.sidecars["intruder"].records())
        said = json.loads(application.present(application.pods["backend"].v4, port, *credentials))
        record = self._record("backend", f"the connection from port {said['port']}", direction="inbound", **{"source.port": said["port"]})
        refused = said["answer"] not in ("an answer", "status accepted")
        if application.accepted_by_backend() != accepted:
            row.wrong.append("backend's server was connected to")
        if len(application.sidecars["intruder"].records()) != own:
            row.wrong.append("it went through the intruder's own sidecar")
        row = self.see(row, "refused" if refused else "allowed", [("backend", record)])
        if record["close.reason"] == "denied":
            row.decided = f"denied: {row.decided}"
        return row


class OpenConnection:
    """A connection that stays open, as of a client with HTTP keep-alive, until somebody cuts it."""

    def __init__(self, witness, source, destination, port):
        self.witness, self.source, self.destination, self.port = witness, source, destination, port
        pods = witness.application.pods
        self.socket = pods[source].connect(pods[destination].v4, port)
        self.outbound = witness.outbound_of(source, self.socket)
        self.answers()

    def answers(self):
        """Whether a request on it is answered now."""
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: frontend\r\n\r\n")
        return self.socket.recv(65536).startswith(ANSWERS[self.port])

    def wait(self):
        """Waits until somebody ends it: that instant, or None."""
        try:
            if self.socket.recv(65536):
                return None
        except TimeoutError:
            return None
        except ConnectionError:
            pass
        return time.monotonic()

    def row(self, ended, by):
        """The row of its end."""
        row = Row(self.source, f"{self.destination}:{self.port} (open)", "cut", by)
        self.socket.close()
        records = self.witness.pair(self.source, self.destination, self.outbound())
        self.witness.see(row, "cut" if ended else "still open", list(zip((self.source, self.destination), records)))
        reasons = {record["close.reason"] for record in records}
        row.decided = f"{' and '.join(sorted(reasons))}; was allowed by {decision(records[-1])}"
        return row
