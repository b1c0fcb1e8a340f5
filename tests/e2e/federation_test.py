"""Callers of another trust domain: refused until namespace or policy allows them, verified with their own domain's bundle and no other's, cut
when bundle or annotation goes. The bundles come from files, and from bundle endpoints by way of the control plane."""

import json
import os
import ssl
import unittest

from kit.bundles import BundleEndpoint, spiffe_bundle
from kit.cluster import Cluster, allow, policy
from kit.controlled import PORT, ControlledMesh
from kit.peer import Peer, Reset, Truncated, context
from kit.pki import Authority
from kit.processes import run
from kit.sidecar import program, sum_of_samples
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


# ctest: timeout 240
class EndpointTest(unittest.TestCase):
    """postern-control fetches the bundles of two trust domains, one by either profile, and api's sidecar has them by its stream."""

    @classmethod
    def setUpClass(cls):
        cls.mesh = mesh = ControlledMesh("api", replicas=1, start=False)
        cls.addClassCleanup(mesh.close)
        folder = mesh.net.folder
        cls.web_ca = Authority(f"{folder}/web", "web.example", name="web CA")
        cls.partner = Authority(f"{folder}/partner", "partner.example", name="partner CA")
        cls.peer = Authority(f"{folder}/peer", "peer.example", name="peer CA")
        pod = mesh.net.pod("endpoints")
        server = cls.web_ca.issue("", subject="/O=web", extensions=f"subjectAltName=IP:{pod.v4}\nextendedKeyUsage=serverAuth\n")
        cls.partner_endpoint = BundleEndpoint(pod, 8443, server, spiffe_bundle(cls.partner, sequence=1, hint=1))
        cls.peer_endpoint = BundleEndpoint(pod, 9443, cls.peer.issue("spiffe://peer.example/server"), spiffe_bundle(cls.peer, sequence=1, hint=1))
        cls.addClassCleanup(cls.partner_endpoint.close)
        cls.addClassCleanup(cls.peer_endpoint.close)
        cls.control = mesh.replicas[0]
        for name, ca in (("web.pem", cls.web_ca), ("peer.pem", cls.peer)):
            write(f"{cls.control.folder}/{name}", ca.certificate)
        cls.federated = [
            {"trustDomain": "partner.example", "endpoint": f"https://{cls.partner_endpoint.address}/bundle", "profile": "https_web",
             "endpointRoots": f"{cls.control.folder}/web.pem"},
            {"trustDomain": "peer.example", "endpoint": f"https://{cls.peer_endpoint.address}", "profile": "https_spiffe",
             "endpointSpiffeId": "spiffe://peer.example/server", "endpointBundle": f"{cls.control.folder}/peer.pem"}]
        cls.control.config["federatedBundles"] = cls.federated
        mesh.api.patch("Pod", "api", {"metadata": {"annotations": SPEAKS_SPIFFE}}, "default")
        mesh.api.namespace("default", {"team": "shop"}, {"postern.dev/allow-trust-domain": "partner.example,peer.example"})
        cls.control.start()
        cls.sidecar = mesh.sidecars["api"]
        cls.sidecar.start()
        cls.caller = Caller(mesh.net.pod("caller"), mesh.pods["api"].v4)

    def comes_to(self, svid, expected):
        """Until it does: the endpoints are asked every five seconds."""
        last = []
        def look():
            last[:] = self.caller.call(svid)
            return (last[0] == b"ping") == expected
        wait_until(look, 30, lambda: f"{svid.spiffe_id} to be {'allowed' if expected else 'refused'}; it was {last}\n{self.mesh.said()}", interval=0.2)
        return self.sidecar.wait_record(direction="inbound", **{"source.port": last[1]})

    def metric(self, name, domain):
        return sum_of_samples(self.control.admin("GET", "/metrics")[1], name, trust_domain=domain)

    def asked(self, endpoint, times=1):
        """The endpoint has been asked that often again, and the answer looked at."""
        before = endpoint.requests
        wait_until(lambda: endpoint.requests >= before + times, 30, self.mesh.said)

    def test_1_both_profiles(self):
        for ca in (self.partner, self.peer):
            self.comes_to(ca.issue(f"spiffe://{ca.trust_domain}/billing"), True)
            self.assertEqual(self.metric("postern_control_federated_authorities", ca.trust_domain), 1)
            self.assertGreater(self.metric("postern_control_federated_retrieved_timestamp_seconds", ca.trust_domain), 0)
        found = self.comes_to(self.peer.issue(BILLING), False)
        self.assertEqual((found["close.reason"], found["close.detail"]), ("identity_rejected", "untrusted"), found)
        domains = {bundle["trust_domain"] for bundle in self.sidecar.admin("GET", "/identities")[1]["bundles"]}
        self.assertEqual(domains, {"cluster.local", "partner.example", "peer.example"})

    def test_2_rotation_and_what_is_bad_or_older(self):
        following = Authority(f"{self.mesh.net.folder}/following", "partner.example", name="next CA")
        old, new = self.partner.issue(BILLING), following.issue(BILLING)
        self.comes_to(old, True)
        with self.caller.open(old) as peer:
            self.partner_endpoint.body = spiffe_bundle(following, sequence=5, hint=1)
            self.comes_to(new, True)
            self.comes_to(old, False)
            peer.send(b"ping")
            self.assertEqual(peer.recv(4), b"ping", "a rotation cuts nobody")
        for body, status, said in (("{", 200, "cannot be read"), (spiffe_bundle(self.partner, sequence=4), 200, "older than the one in force"),
                                   ("x" * (1 << 20) + "x", 200, "longer than 1048576 bytes"), (self.partner_endpoint.body, 503, "answered 503"),
                                   (self.partner.certificate, 200, "no SPIFFE bundle")):
            refused = self.metric("postern_control_federated_refused_total", "partner.example")
            self.partner_endpoint.body, self.partner_endpoint.status = body, status
            self.control.process.wait_for_output(f'"federated_bundle_refused".*{said}', 30)
            self.assertGreater(self.metric("postern_control_federated_refused_total", "partner.example"), refused)
            self.comes_to(new, True)
        self.partner_endpoint.body, self.partner_endpoint.status = spiffe_bundle(self.partner, sequence=6, hint=1), 200
        self.comes_to(old, True)

    def test_3_an_endpoint_proves_itself_by_the_latest_bundle(self):
        impostor = self.peer.issue("spiffe://peer.example/impostor")
        good, self.peer_endpoint.svid = self.peer_endpoint.svid, impostor
        self.control.process.wait_for_output("refused: it is that of spiffe://peer.example/impostor; expected an X.509-SVID of "
                                             "spiffe://peer.example/server", 30)
        self.peer_endpoint.svid = good
        following = Authority(f"{self.mesh.net.folder}/following-peer", "peer.example", name="next CA")
        self.peer_endpoint.body = spiffe_bundle(self.peer, following, sequence=2, hint=1)
        self.comes_to(following.issue("spiffe://peer.example/billing"), True)
        self.peer_endpoint.svid = following.issue("spiffe://peer.example/server")  # which the file that it began with does not know
        self.peer_endpoint.body = spiffe_bundle(following, sequence=3, hint=1)
        self.comes_to(self.peer.issue("spiffe://peer.example/billing"), False)
        self.comes_to(following.issue("spiffe://peer.example/billing"), True)

    def test_4_a_replica_that_knows_nothing_yet_takes_nothing_away_and_an_entry_that_goes_does(self):
        billing = self.partner.issue(BILLING)
        self.comes_to(billing, True)
        with self.caller.open(billing) as peer:
            self.partner_endpoint.status = 503
            self.restart(self.federated)
            self.control.process.wait_for_output('"federated_bundle_refused".*answered 503', 30)
            peer.send(b"ping")
            self.assertEqual(peer.recv(4), b"ping")
            self.comes_to(billing, True)
            self.restart(self.federated[1:])
            self.assertIsInstance(peer.end(), (Reset, Truncated))
        found = self.comes_to(billing, False)
        self.assertEqual((found["close.reason"], found["close.detail"]), ("identity_rejected", "unknown_trust_domain"), found)

    def restart(self, federated):
        """The control plane with another list; the sidecar is in step with it on return."""
        self.control.stop()
        self.control.config["federatedBundles"] = federated
        self.control.start()
        wait_until(lambda: self.mesh.serving("api") is not None, 30, self.mesh.said)
