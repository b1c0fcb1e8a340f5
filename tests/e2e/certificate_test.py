"""The rules of docs/identity-verification.md over real TLS: whoever's certificate breaks one is refused by its name, which the access log has."""

import json
import ssl
import subprocess
import tempfile
import unittest

from kit.cluster import Cluster, allow, policy
from kit.peer import ACCEPTED, DATA, OPEN, Peer, frame
from kit.pki import Authority
from kit.sidecar import program

DOMAIN = "example.org"
WEB = f"spiffe://{DOMAIN}/ns/default/sa/default/pod/web/u-web"
USUAL = {"subjectAltName": f"URI:{WEB}", "basicConstraints": "critical,CA:FALSE", "keyUsage": "critical,digitalSignature",
         "extendedKeyUsage": "serverAuth,clientAuth", "subjectKeyIdentifier": "hash", "authorityKeyIdentifier": "keyid"}
CA = {"subjectAltName": f"URI:spiffe://{DOMAIN}", "basicConstraints": "critical,CA:TRUE", "keyUsage": "critical,keyCertSign,cRLSign",
      "extendedKeyUsage": None, "subjectKeyIdentifier": "hash"}

LEAVES = {  # what is refused: the extension that is changed; None leaves it out
    "malformed": {"basicConstraints": "critical,CA:FALSE,pathlen:3"},
    "leaf_is_ca": {"basicConstraints": "critical,CA:TRUE"},
    "key_usage_missing": {"keyUsage": None},
    "may_sign_certificates": {"keyUsage": "critical,digitalSignature,keyCertSign"},
    "may_sign_crls": {"keyUsage": "critical,digitalSignature,cRLSign"},
    "no_digital_signature": {"keyUsage": "critical,keyAgreement"},
    "key_usage_not_critical": {"keyUsage": "digitalSignature"},
    "extended_key_usage": {"extendedKeyUsage": "serverAuth"},
    "no_uri_san": {"subjectAltName": "DNS:web.default.svc"},
    "several_uri_sans": {"subjectAltName": f"URI:{WEB},URI:https://{DOMAIN}/"},
    "spiffe_id_too_long": {"subjectAltName": f"URI:spiffe://{DOMAIN}/" + "a" * 2040},
    "not_a_spiffe_id": {"subjectAltName": f"URI:spiffe://{DOMAIN}:8443/web"},
    "no_workload_path": {"subjectAltName": f"URI:spiffe://{DOMAIN}"},
    "unknown_trust_domain": {"subjectAltName": "URI:spiffe://evil.example/web"},
    "unknown_critical_extension": {"1.3.6.1.4.1.99999.1": "critical,DER:0500"},
}
ISSUERS = {  # the same of an intermediate
    "issuer_not_ca": {"basicConstraints": "critical,CA:FALSE", "keyUsage": "critical,digitalSignature"},
    "issuer_may_not_sign": {"keyUsage": "critical,digitalSignature"},
    "issuer_has_path": {"subjectAltName": f"URI:spiffe://{DOMAIN}/ca"},
    "name_constraints": {"nameConstraints": "critical,permitted;URI:evil.example"},
}


def extensions(changed, usual=None):
    return "".join(f"{name}={value}\n" for name, value in {**(usual or USUAL), **changed}.items() if value is not None)


class RulesCase(unittest.TestCase):
    """api serves port 7000 to app=web; a raw peer presents one certificate after another as web's."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(DOMAIN)
        cls.addClassCleanup(cluster.close)
        cls.web = cluster.pod("web", app="web")
        cls.api = cluster.pod("api", sidecar=True, app="api")
        cls.app = cluster.app(cls.api, 7000)
        cluster.publish(policy("api-allow", app="api", ingress=[allow(7000, app="web")]))
        cluster.start()
        cls.sidecar = cluster.sidecars["api"]

    def issue(self, **changed):
        return self.cluster.ca.issue(WEB, extensions=extensions(changed))

    def below(self, name, **changed):
        """An SVID of web issued by an intermediate with those extensions."""
        signer = self.cluster.ca.issue(f"spiffe://{DOMAIN}", extensions=extensions(changed, CA))
        return Authority.below(signer, f"{self.cluster.net.folder}/{name}").issue(WEB)


class RefusalTest(RulesCase):
    """Each violation: refused in the handshake, by a name of its own; the application hears nothing."""

    def refused(self, svid, error):
        accepted = self.app.accepted
        with Peer.connect(self.web, self.api.v4, 7000, svid, handshake=False, verify=False) as peer:
            port = peer.sock.getsockname()[1]
            try:
                peer.handshake()
                peer.send(OPEN, frame(DATA, b"evil"))
                end = peer.end()
            except ssl.SSLError as refusal:  # TLS 1.3: the alert usually comes with the first read
                end = refusal
            self.assertIsInstance(end, ssl.SSLError)
        found = self.sidecar.wait_record(direction="inbound", **{"source.port": port})
        seen = {name: found.get(name) for name in ("close.reason", "close.detail", "verdict", "tls.established", "source.spiffe_id")}
        self.assertEqual(seen, {"close.reason": "identity_rejected", "close.detail": error, "verdict": "DROPPED", "tls.established": False,
                                "source.spiffe_id": None}, json.dumps(found))
        self.assertEqual(self.app.accepted, accepted)

    def test_leaves(self):
        for error, changed in LEAVES.items():
            with self.subTest(error=error):
                self.refused(self.issue(**changed), error)

    def test_issuers(self):
        for error, changed in ISSUERS.items():
            with self.subTest(error=error):
                self.refused(self.below(error, **changed), error)

    def test_path_length(self):
        # Of different names: RFC 5280 section 4.2.1.9 does not count those that are issued to their own name.
        one = Authority.below(self.cluster.ca.issue("", extensions=extensions({"basicConstraints": "critical,CA:TRUE,pathlen:0"}, CA), subject="/O=one"),
                              f"{self.cluster.net.folder}/one")
        two = Authority.below(one.issue("", extensions=extensions({}, CA), subject="/O=two"), f"{self.cluster.net.folder}/two")
        self.refused(two.issue(WEB), "path_too_long")

    def test_trust_and_time(self):
        other = Authority(f"{self.cluster.net.folder}/other", DOMAIN, name="other CA")
        self.refused(other.issue(WEB), "untrusted")
        self.refused(self.cluster.ca.issue(WEB, not_before=-7200, not_after=-3600), "expired")
        self.refused(self.cluster.ca.issue(WEB, not_before=3600, not_after=7200), "not_yet_valid")

    def test_what_breaks_no_rule_is_served(self):
        for svid in (self.issue(), self.issue(extendedKeyUsage=None), self.issue(subjectAltName=f"URI:{WEB},DNS:web"), self.below("good"),
                     self.below("constrained", nameConstraints=f"critical,permitted;URI:{DOMAIN}")):
            with Peer.connect(self.web, self.api.v4, 7000, svid, verify=False) as peer:
                self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))


class ExplanationTest(RulesCase):
    """posternctl certificate verify says of the same certificates what a sidecar says, rule by rule."""

    def verify(self, svid, *more):
        with tempfile.TemporaryDirectory() as folder:
            chain, key, bundle = svid.write(folder)
            done = subprocess.run([program("posternctl"), "certificate", "verify", chain, "--bundle", bundle, "--key", key, *more],
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done

    def test_every_rule_is_shown_with_its_section(self):
        done = self.verify(self.issue())
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn(f"SPIFFE ID   {WEB}", done.stdout)
        self.assertRegex(done.stdout, r"pass +key_usage_not_critical +X509-SVID 4\.3 +keyUsage is critical")
        self.assertIn("pass  the private key is that of the leaf", done.stdout)
        self.assertNotIn("FAIL", done.stdout)

    def test_a_violation_is_named_and_what_rests_on_it_is_not_checked(self):
        for error, changed in LEAVES.items():
            with self.subTest(error=error):
                done = self.verify(self.issue(**changed), "--end", "client", "--trust-domain", DOMAIN, "--output", "json")
                said = json.loads(done.stdout)
                self.assertEqual((done.returncode, said["accepted"], said["error"]), (1, False, error), said)
        said = json.loads(self.verify(self.issue(keyUsage=None), "--output", "json").stdout)
        outcome = {rule["name"]: rule["outcome"] for rule in said["rules"]}
        self.assertEqual((outcome["key_usage_missing"], outcome["may_sign_crls"], outcome["no_uri_san"]), ("fail", "not_checked", "pass"))

    def test_another_key_and_another_trust_domain(self):
        svid = self.issue()
        svid.key = self.issue().key
        said = json.loads(self.verify(svid, "--output", "json").stdout)
        self.assertEqual((said["accepted"], said["key_matches"]), (False, False))
        said = json.loads(self.verify(self.issue(), "--trust-domain", "other.example", "--output", "json").stdout)
        self.assertEqual((said["accepted"], said["error"]), (False, "unknown_trust_domain"))

    def test_a_chain_out_of_order_is_said(self):
        svid = self.below("order")
        first, second = [part + "-----END CERTIFICATE-----\n" for part in svid.chain.split("-----END CERTIFICATE-----\n")[:2]]
        svid.chain = first + self.cluster.ca.certificate + second
        said = json.loads(self.verify(svid, "--output", "json").stdout)
        self.assertEqual((said["accepted"], said["error"]), (False, "chain_order"))


class IdentityCommandTest(RulesCase):
    """posternctl identity, over the admin socket."""

    def ask(self, *more):
        return subprocess.run([program("posternctl"), "identity", "--socket", self.sidecar.admin_path, *more], capture_output=True, text=True,
                              check=False)

    def test_says_who_it_is_until_when_and_whom_it_trusts(self):
        done = self.ask()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, f"SPIFFE ID +{self.sidecar.spiffe_id}\n")
        self.assertRegex(done.stdout, r"valid until +\d{4}-\d\d-\d\dT[\d:]+Z \(in \d+ h \d+ min\)")
        self.assertRegex(done.stdout, "source +files: .*svid.pem")
        self.assertRegex(done.stdout, f"trust bundle +{DOMAIN}\n +CN=test CA, valid until ")
        said = json.loads(self.ask("--output", "json").stdout)
        self.assertEqual(said["spiffe_id"], self.sidecar.spiffe_id)
        self.assertEqual([(b["trust_domain"], len(b["authorities"])) for b in said["bundles"]], [(DOMAIN, 1)])
        self.assertNotIn("PRIVATE", json.dumps(said))

    def test_without_a_sidecar_it_says_so(self):
        done = subprocess.run([program("posternctl"), "identity", "--socket", "/nonexistent/admin.sock"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is postern-proxy running here", done.stderr)
        done = subprocess.run([program("posternctl"), "identity", "--help"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("trust bundles", done.stdout)


if __name__ == "__main__":
    unittest.main()
