"""Callers of another trust domain: refused until namespace or policy allows them, verified with their own domain's bundle and no other's, cut
when bundle or annotation goes. The bundles come from files."""

import json
import os
import ssl
import unittest

from kit.bundles import spiffe_bundle
from kit.cluster import Cluster, allow, policy
from kit.controlled import PORT
from kit.peer import Peer, Reset, Truncated, context
from kit.pki import Authority
from kit.processes import run
from kit.sidecar import program
from kit.waiting import wait_until

BILLING, OTHER = "spiffe://partner.example/billing", "spiffe://partner.example/other"
SPEAKS_SPIFFE = {"postern.dev/mtls": f"{PORT}=spiffe"}


def write(path, text):
    """In one step, as every file that is watched should be replaced."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


class Caller:
    """Connects with any SVID from a pod that no manifest names, speaking plain SPIFFE mTLS."""

    def __init__(self, pod, address):
        self.pod, self.address = pod, address

    def open(self, svid, **options):
        return Peer.connect(self.pod, self.address, PORT, svid, alpn=(), **{"verify": False, **options})

    def call(self, svid):
        """What comes of it: b"ping" (echoed), "cut", or the TLS error's reason; and the caller's own port."""
        with self.open(svid, handshake=False) as peer:
            port = peer.sock.getsockname()[1]
            try:
                peer.handshake()
                peer.send(b"ping")
                return peer.recv(4), port
            except (Reset, Truncated):  # never a clean end
                return "cut", port
            except ssl.SSLError as error:
                return error.reason, port


class FileCase(unittest.TestCase):
    """api (sidecar, SPIFFE mTLS on its port) has the bundle of partner.example from a file."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster()
        cls.addClassCleanup(cluster.close)
        cls.partner = Authority(f"{cluster.net.folder}/partner", "partner.example", name="partner CA")
        cls.bundle = f"{cluster.net.folder}/partner.json"
        write(cls.bundle, spiffe_bundle(cls.partner, sequence=1))
        federated = [{"trustDomain": "partner.example", "bundle": cls.bundle}]
        cls.api = cluster.pod("api", sidecar=True, app="api", annotations=SPEAKS_SPIFFE, config={"identity": {"federatedBundles": federated}})
        cls.app = cluster.app(cls.api, PORT)
        cls.caller = Caller(cluster.net.pod("caller"), cls.api.v4)
        cls.billing, cls.other = cls.partner.issue(BILLING), cls.partner.issue(OTHER)
        cluster.publish()
        cluster.start()
        cls.sidecar = cluster.sidecars["api"]

    def publish(self, *policies, trust_domain=None):
        self.cluster.namespace["metadata"]["annotations"] = {"postern.dev/allow-trust-domain": trust_domain} if trust_domain else {}
        self.cluster.publish(*policies)

    def record(self, port, **fields):
        return self.sidecar.wait_record(direction="inbound", **{"source.port": port}, **fields)

    def allowed(self, svid):
        came, port = self.caller.call(svid)
        self.assertEqual(came, b"ping", self.sidecar.output()[-2000:])
        found = self.record(port)
        self.assertEqual((found["verdict"], found["source.spiffe_id"], found.get("source.pod")), ("FORWARDED", svid.spiffe_id, None), found)
        return found

    def refused(self, svid, reason, detail=None):
        accepted = self.app.accepted
        came, port = self.caller.call(svid)
        self.assertNotEqual(came, b"ping")
        found = self.record(port)
        self.assertEqual((found["verdict"], found["close.reason"], found.get("close.detail")), ("DROPPED", reason, detail), found)
        self.assertEqual(self.app.accepted, accepted, "the application hears nothing of it")
        return found

    def alive(self, peer):
        peer.send(b"pong")
        self.assertEqual(peer.recv(4), b"pong")

    def adopted(self, change):
        """Does what changes the bundle; it is in use on return."""
        count = self.sidecar.output().count("identity_adopted")
        change()
        wait_until(lambda: self.sidecar.output().count("identity_adopted") > count, what=lambda: self.sidecar.output()[-3000:])


class AnnotationTest(FileCase):
    """Who is allowed: nobody, a trust domain by the namespace, or whom a policy lists."""

    def test_by_default_it_is_refused_even_by_a_pod_that_is_open_to_everybody(self):
        for rules in ([], [policy("any", app="api", ingress=[allow(PORT, everybody=True)])],
                      [policy("block", app="api", ingress=[allow(PORT, block="10.77.0.0/16")])]):
            self.publish(*rules)
            found = self.refused(self.billing, "trust_domain_not_allowed")
            self.assertEqual((found["source.spiffe_id"], found["tls.established"], found["policy.basis"]), (BILLING, True, "outsider"), found)

    def test_a_namespace_allows_a_trust_domain(self):
        self.publish(trust_domain="partner.example")
        self.assertEqual(self.allowed(self.billing)["policy.basis"], "not_isolated")
        self.publish(policy("block", app="api", ingress=[allow(PORT, block="10.77.0.0/16")]), trust_domain="partner.example")
        self.assertEqual(self.allowed(self.other)["policy.enforced"][0]["name"], "block")
        self.publish(policy("pods", app="api", ingress=[allow(PORT, ns={})]), trust_domain="partner.example")
        self.refused(self.billing, "denied")  # what selects pods, all of them even, selects none of another trust domain
        self.publish(trust_domain="another.example")
        self.refused(self.billing, "trust_domain_not_allowed")

    def test_a_policy_lists_spiffe_ids(self):
        listed = {"postern.dev/allow-spiffe-ids": BILLING}
        self.publish(policy("listed", app="api", ingress=[allow(PORT, app="nobody")], annotations=listed))
        rule = self.allowed(self.billing)["policy.enforced"][0]
        self.assertEqual((rule["name"], rule["rule_index"], rule["annotation"]), ("listed", 0, "postern.dev/allow-spiffe-ids"), rule)
        self.refused(self.other, "trust_domain_not_allowed")
        self.publish(policy("listed", app="api", ingress=[allow(PORT + 1, app="nobody")], annotations=listed))
        self.refused(self.billing, "trust_domain_not_allowed")

    def test_a_live_connection_ends_with_the_annotation(self):
        listed = policy("listed", app="api", ingress=[allow(PORT, app="nobody")], annotations={"postern.dev/allow-spiffe-ids": BILLING})
        for kept in ({"trust_domain": "partner.example"}, {}):
            self.publish(*([] if kept else [listed]), **kept)
            with self.caller.open(self.billing) as peer:
                self.alive(peer)
                self.publish(policy("listed", app="api", ingress=[allow(PORT, app="nobody")]))
                self.assertIsInstance(peer.end(), (Reset, Truncated))
                self.record(peer.sock.getsockname()[1], **{"close.reason": "policy_changed"})

    def test_posternctl_says_the_same(self):
        self.publish(policy("listed", app="api", ingress=[allow(PORT, app="nobody")], annotations={"postern.dev/allow-spiffe-ids": BILLING}))
        queries = f"{self.cluster.net.folder}/queries"
        write(queries, "".join(json.dumps({"from": one, "to": "default/api", "port": PORT}) + "\n"
                               for one in (BILLING, f"{OTHER}@10.77.0.9", "spiffe://stranger.example/x")))
        said = run([program("posternctl"), "verdicts", "--manifests", self.cluster.policies.path, "--queries", queries], check=True).stdout
        self.assertEqual([json.loads(line)["verdict"] for line in said.splitlines()], ["allow", "deny", "deny"])
        said = run([program("posternctl"), "explain", "--manifests", self.cluster.policies.path, "--from", BILLING, "--to", "default/api",
                    "--port", PORT], check=True).stdout
        self.assertIn("allow: default/listed ingress[0] by postern.dev/allow-spiffe-ids", said)
        for svid, verdict in ((self.billing, "allowed"), (self.other, "refused")):
            came, _ = self.caller.call(svid)
            self.assertEqual("allowed" if came == b"ping" else "refused", verdict)


class BundleTest(FileCase):
    """Who is believed: whoever chains to the bundle of their own trust domain, as long as it is there."""

    def setUp(self):
        self.publish(trust_domain="partner.example")

    def put(self, *authorities, sequence=None):
        self.adopted(lambda: write(self.bundle, spiffe_bundle(*authorities, sequence=sequence)))

    def test_an_authority_speaks_for_its_own_trust_domain_only(self):
        self.allowed(self.billing)
        self.refused(self.cluster.ca.issue(BILLING), "identity_rejected", "untrusted")
        self.refused(self.partner.issue(self.cluster.id_of("api")), "identity_rejected", "untrusted")
        self.refused(self.partner.issue("spiffe://third.example/x"), "identity_rejected", "unknown_trust_domain")

    def test_a_bundle_is_rotated_by_replacing_the_file(self):
        self.addCleanup(self.put, self.partner)
        following = Authority(f"{self.cluster.net.folder}/following", "partner.example", name="next CA")
        successor = following.issue(BILLING)
        self.refused(successor, "identity_rejected", "untrusted")
        self.put(self.partner, following, sequence=2)
        self.allowed(self.billing)
        self.allowed(successor)
        self.put(following, sequence=3)
        self.allowed(successor)
        self.refused(self.billing, "identity_rejected", "untrusted")

    def test_what_is_bad_or_older_changes_nothing(self):
        self.addCleanup(self.put, self.partner)
        self.put(self.partner, Authority(f"{self.cluster.net.folder}/more", "partner.example"), sequence=7)
        for text, said in (("{", "cannot be read"), (spiffe_bundle(sequence=6), "older than the one in force: spiffe_sequence 6, after 7")):
            write(self.bundle, text)
            self.sidecar.process.wait_for_output(f'"federated_bundle_warning".*{said}', 10)
            self.allowed(self.billing)
        self.adopted(lambda: os.unlink(self.bundle))  # what comes after a withdrawal begins anew

    def test_a_bundle_that_goes_takes_everything_with_it(self):
        self.addCleanup(self.put, self.partner)
        tls = context(self.billing, alpn=(), verify=False)
        with self.caller.open(None, tls_context=tls) as peer:
            self.alive(peer)
            session = peer.session
            with self.caller.open(None, tls_context=tls, session=session) as resumed:
                self.alive(resumed)
                self.assertTrue(resumed.resumed)
            self.adopted(lambda: os.unlink(self.bundle))
            self.assertIsInstance(peer.end(), (Reset, Truncated))
            self.record(peer.sock.getsockname()[1], **{"close.reason": "identity_rejected"})
        with self.caller.open(None, tls_context=tls, session=session, handshake=False) as again:
            with self.assertRaises(ssl.SSLError):
                again.handshake()
                again.recv(1)
            found = self.record(again.sock.getsockname()[1])
        self.assertEqual((found["close.reason"], found["close.detail"]), ("identity_rejected", "unknown_trust_domain"), found)
