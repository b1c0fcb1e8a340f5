#!/usr/bin/env python3
"""Microsegmentation that can be watched: five pods on this machine, each with its sidecar, and what NetworkPolicies let through."""

import argparse
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, os.pardir, "tests")]
sys.dont_write_bytecode = True

from application import OFFER, PODS, POLICIES, TRUST_DOMAIN, Application, ManifestFolder  # noqa: E402
from attempts import OpenConnection, Witness  # noqa: E402
from kit.pki import Authority  # noqa: E402
from report import Report  # noqa: E402

# Who is let through by what, in the words of the table.
INTRUDER_CALLS = "intruder-egress egress[0].to[0]"
ALLOWED = "frontend-allow ingress[0].from[0]"
REFINED = "frontend-allow-refined ingress[0].from[0]"
INGRESS_CALLS = "not_isolated (egress)"
FRONTEND_CALLS = "egress[0].to[0] + backend-allow ingress[0].from[0]"
BACKEND_CALLS = "backend-allow egress[0].to[0] + database-allow ingress[0].from[0]"


def nobody_allows(direction, *policies):
    return f"no {direction} rule in " + ", ".join(policies)


class Walk:
    """The steps, on a running application."""

    def __init__(self, application, report):
        self.application, self.report = application, report
        self.witness = Witness(application)

    def adopt(self, *policies, audited=None, meanwhile=lambda: None):
        """Replaces the policies, does something, and waits until every sidecar enforces them."""
        wait_enforced = self.application.adopt(*policies, audited=audited)
        done = meanwhile()
        wait_enforced()
        return done

    def catalogue(self, pod, address, port):
        """A request for the catalogue from that pod: whether it came from the database."""
        with self.application.pods[pod].connect(address, port) as s:
            s.sendall(b"GET /catalogue HTTP/1.0\r\n\r\n")
            answer = b""
            try:
                while more := s.recv(65536):
                    answer += more
            except ConnectionError:
                return False
        return OFFER.encode() in answer

    def from_ingress(self, policy):
        """Somebody asks the ingress for the catalogue: three hops."""
        return self.witness.chain(lambda: self.catalogue("ingress-nginx", "127.0.0.1", 80), [
            ("ingress-nginx", "frontend", 80, f"{INGRESS_CALLS} + {REFINED}"),
            ("frontend", "backend", 8080, f"{policy} {FRONTEND_CALLS}"),
            ("backend", "database", 6379, BACKEND_CALLS),
        ])

    def everybody_of_the_namespace(self):
        self.report.step("i", "frontend-allow", "Every pod of the namespace may reach frontend:80. The intruder's own egress policy lets it call "
                         "anybody, so what refuses it is the destination, which knows it by the identity of its pod: all these pods share one "
                         "service account. ingress-nginx lives in another namespace, which frontend-allow does not name.")
        attempt = self.witness.attempt
        rows = [
            attempt("intruder", "frontend", 80, "allowed", f"{INTRUDER_CALLS} + {ALLOWED}"),
            attempt("intruder", "frontend", 80, "allowed", f"{INTRUDER_CALLS} + {ALLOWED}", v6=True),
            attempt("intruder", "backend", 8080, "refused", nobody_allows("ingress", "backend-allow", "default-deny")),
            attempt("intruder", "backend", 8080, "refused", nobody_allows("ingress", "backend-allow", "default-deny"), v6=True),
            attempt("intruder", "database", 6379, "refused", nobody_allows("ingress", "database-allow", "default-deny")),
            attempt("ingress-nginx", "frontend", 80, "refused", nobody_allows("ingress", "default-deny", "frontend-allow")),
        ]
        self.report.table(rows)

    def refined_under_an_open_connection(self):
        self.report.step("ii", "frontend-allow is replaced by frontend-allow-refined, while the intruder is connected",
                         f"{self.application.source.change} The open connection is decided again and cut, new ones are refused; "
                         "ingress-nginx gets its page through frontend and backend from the database.")
        held = OpenConnection(self.witness, "intruder", "frontend", 80)
        began = time.monotonic()
        ended = self.adopt("frontend-allow-refined", meanwhile=held.wait)
        enforced = time.monotonic() - began
        cut = held.row(ended, f"policy_changed; was allowed by {ALLOWED}")
        rows = [cut, self.witness.attempt("intruder", "frontend", 80, "refused", nobody_allows("ingress", "default-deny", "frontend-allow-refined")),
                *self.from_ingress("frontend-allow-refined")]
        self.report.table(rows)
        if ended:
            self.report.remark(f"{self.application.source.from_change} until the intruder's connection was cut: {(ended - began) * 1e3:.0f} ms; until every "
                               f"sidecar said that it enforces the change: {enforced * 1e3:.0f} ms.")

    def egress(self):
        self.report.step("iii", "frontend straight to the database", "No policy lets frontend call the database, so its own sidecar refuses: "
                         "nothing leaves the pod, and the database has no record.")
        self.report.table([
            self.witness.attempt("frontend", "database", 6379, "refused", nobody_allows("egress", "default-deny", "frontend-allow-refined")),
            self.witness.attempt("frontend", "database", 6379, "refused", nobody_allows("egress", "default-deny", "frontend-allow-refined"), v6=True),
        ])

    def past_the_sidecar(self):
        self.report.step("iv", "The intruder goes past its own sidecar", "As the sidecar's user (1337), whose connections iptables leaves alone, "
                         "it connects to backend itself and presents whatever it can get hold of. Backend's sidecar refuses each before "
                         "backend's server hears of it; the reason is that of its access record.")
        application = self.application
        folder = f"{application.net.folder}/presented"
        def stored(name, svid):
            return svid.write(f"{folder}/{name}", 1337)[:2]
        other = Authority(f"{application.net.folder}/other-ca", TRUST_DOMAIN, name="another CA")
        tries = [
            ("its own valid SVID", "denied: " + nobody_allows("ingress", "backend-allow", "default-deny"), *application.own_credentials("intruder")),
            ("no certificate", "certificate_required", "none"),
            ("frontend's name, another CA", "identity_rejected/untrusted", *stored("other", application.bound_svid("frontend", authority=other))),
            ("frontend's name, expired", "identity_rejected/expired",
             *stored("expired", application.bound_svid("frontend", not_before=-7200, not_after=-3600))),
            ("SVID of a deleted frontend", "identity_unknown/uid_mismatch",
             *stored("deleted", application.bound_svid("frontend", uid="00000000-dead-4a5e-9c3b-2f5d8e7a0000"))),
            ("plaintext", "handshake_failed/tls_protocol", "plaintext"),
        ]
        self.report.table([self.witness.past_the_sidecar(what, 8080, by, *credentials) for what, by, *credentials in tries])

    def audit(self):
        self.report.step("v", "frontend-allow-refined in audit, beside frontend-allow that it is to replace", "It has the annotations "
                         "postern.dev/enforcement: audit and postern.dev/replaces: frontend-allow. It decides nothing yet: the intruder still "
                         "gets through, ingress-nginx does not. The records say AUDIT, and what will happen once the one replaces the other.")
        self.adopt("frontend-allow", "frontend-allow-refined", audited={"frontend-allow-refined": "frontend-allow"})
        self.report.table([
            self.witness.attempt("intruder", "frontend", 80, "allowed", f"{INTRUDER_CALLS} + {ALLOWED}; pending: DROPPED, " +
                                 nobody_allows("ingress", "default-deny", "frontend-allow-refined")),
            self.witness.attempt("ingress-nginx", "frontend", 80, "refused",
                                 nobody_allows("ingress", "default-deny", "frontend-allow") + f"; pending: FORWARDED, {REFINED}"),
        ])

    def both(self):
        self.report.step("vi", "frontend-allow and frontend-allow-refined, both enforced", "NetworkPolicies add up: what either allows is allowed. "
                         "A policy that is meant to narrow another must replace it.")
        self.adopt("frontend-allow", "frontend-allow-refined")
        self.report.table([
            self.witness.attempt("intruder", "frontend", 80, "allowed", f"{INTRUDER_CALLS} + {ALLOWED}"),
            *self.from_ingress("frontend-allow"),
            self.witness.attempt("intruder", "backend", 8080, "refused", nobody_allows("ingress", "backend-allow", "default-deny")),
        ])

    def all(self):
        self.everybody_of_the_namespace()
        self.refined_under_an_open_connection()
        self.egress()
        self.past_the_sidecar()
        self.audit()
        self.both()


def hold(application, report):
    """Leaves everything running until Ctrl-C, and says how to try things by hand."""
    report.say(f"""
Everything is left running, with frontend-allow and frontend-allow-refined in force. In another terminal, as root:

{application.by_hand()}

Ctrl-C removes everything.""")
    while True:
        signal.pause()


def parse():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__, epilog="Exit status: 0 if everything was seen as expected, 1 if not.")
    parser.add_argument("--hold", action="store_true", help="leave everything running afterwards, and print how to try things by hand, until Ctrl-C")
    parser.add_argument("--control", action="store_true", help="with a real Kubernetes API server and postern-control in place of manifest files")
    parser.add_argument("--cluster", action="store_true", help="in a real cluster of one node: kubelet and containerd, Postern installed by its chart")
    parser.add_argument("--records", choices=("short", "full"), default="short", help="the access records under each table: their telling fields, or whole")
    parser.add_argument("--manifests", metavar="DIR", default=f"{HERE}/manifests", help="other manifests than those of demo/manifests, by the same names")
    parser.add_argument("--name", default="demo", help="how the names of the network namespaces begin (default: demo)")
    return parser.parse_args()


def start(arguments, report):
    if arguments.cluster:
        from cluster import Cluster  # pylint: disable=import-outside-toplevel
        report.say(f"Starting a cluster of one node, with Postern installed by its chart, and {len(PODS)} Deployments: {', '.join(PODS)}.")
        return Cluster(arguments.name, arguments.manifests)
    report.say(f"Starting {len(PODS)} pods: {', '.join(PODS)}; each a network namespace with a postern-proxy, real servers, IPv4 and IPv6.")
    if arguments.control:
        from control import ControlPlane  # pylint: disable=import-outside-toplevel
    return Application(arguments.name, arguments.manifests, ControlPlane if arguments.control else ManifestFolder)


def main():
    arguments = parse()
    if os.geteuid() != 0:
        sys.exit("./dev demo: needs root, for network namespaces and iptables")
    for name in ("topology", *POLICIES, "frontend-allow", "frontend-allow-refined"):
        if not os.path.exists(f"{arguments.manifests}/{name}.yaml"):
            sys.exit(f"./dev demo: {arguments.manifests}/{name}.yaml is missing (--manifests)")
    began = time.monotonic()
    report = Report(sys.stdout, arguments.records == "full")
    application = start(arguments, report)
    try:
        report.say(f"Ready after {time.monotonic() - began:.1f} s.")
        Walk(application, report).all()
        summary = f"{report.rows} attempts, {report.rows - report.different} as expected, {report.different} different"
        report.say(f"\n{summary}; {time.monotonic() - began:.1f} s.")
        if arguments.hold:
            hold(application, report)
    except KeyboardInterrupt:
        if not arguments.hold or not report.rows:
            return 130
        report.say()
    finally:
        application.close()
    return 1 if report.different else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
