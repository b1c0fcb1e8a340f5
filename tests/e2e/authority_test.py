"""The built-in CA: postern-control signs SVIDs for pods that a real API server vouches for."""

import json
import re
import ssl
import subprocess
import time
import unittest

from kit.controlled import ControlledMesh
from kit.kube import ApiError
from kit.peer import context
from kit.pki import Svid, openssl
from kit.waiting import wait_until


class CaCase(unittest.TestCase):
    names, replicas, built_in, options = ("web", "api"), 1, {}, {}

    def setUp(self):
        self.mesh = ControlledMesh(*self.names, replicas=self.replicas, built_in={"enabled": True, **self.built_in}, **self.options)
        self.addCleanup(self.mesh.close)
        self.api = self.mesh.api

    def identity(self, name):
        """The serial number and SPIFFE ID of the SVID that a pod's sidecar has now."""
        lines = [json.loads(line) for line in self.mesh.sidecars[name].output().splitlines() if '"identity_adopted"' in line]
        return lines[-1]["serial"], lines[-1]["spiffe_id"]

    def sign(self, token, csr, *, replica=None, roots=None):
        """One request to the signing port from the pod "web": (status, answer)."""
        replica = replica or self.mesh.replicas[0]
        host, port = replica.signing_address.rsplit(":", 1)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.set_alpn_protocols(["postern-signing/1"])
        tls.load_verify_locations(cadata=roots or self.mesh.secret()[1])
        body = json.dumps({"token": token, "csr": csr, "bundleSequence": 0}).encode()
        # Past the pod's own redirection: from the control plane's pod.
        with tls.wrap_socket(replica.pod.connect(host, int(port)), server_side=False) as s:
            s.sendall(b"POST /v1/svid HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            text = b""
            while piece := s.recv(65536):
                text += piece
        head, _, answer = text.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(answer)

    def csr(self, *, algorithm=("EC", "ec_paramgen_curve:P-256"), extra=()):
        """(key, CSR), both PEM."""
        key = openssl("genpkey", "-algorithm", algorithm[0], *(("-pkeyopt", algorithm[1]) if algorithm[1] else ()))
        path = f"{self.mesh.net.folder}/key-{time.monotonic_ns()}"
        with open(path, "w", encoding="ascii") as file:
            file.write(key)
        return key, openssl("req", "-new", "-key", path, "-subj", "/CN=whatever", *extra)

    def svid_of(self, name):
        key, csr = self.csr()
        status, answer = self.sign(self.mesh.token(name), csr)
        self.assertEqual(status, 200, answer)
        return Svid("", answer["chain"], key, answer["bundle"])


# ctest: timeout 240
class SigningTest(CaCase):
    """A pod gets the SVID of that pod, and nobody gets another."""

    built_in = {"podRequestsPerMinute": 6}

    def test_sidecars_get_their_svids_and_talk(self):
        self.mesh.wait_allowed("web", "api")
        for name in self.names:
            self.assertEqual(self.identity(name)[1],
                             f"spiffe://cluster.local/ns/default/sa/default/pod/{name}/{self.mesh.uid(name)}")
        said = [json.loads(line) for line in self.mesh.replicas[0].output().splitlines() if '"svid_issued"' in line]
        record = next(line for line in said if line["pod"] == "default/web")
        self.assertEqual((record["serial"], record["spiffe_id"]), self.identity("web"))
        self.assertRegex(record["expires"], r"^\d{4}-.*Z$")
        self.assertEqual(self.mesh.replicas[0].metric("postern_control_svids_issued_total"), 2)
        now = self.mesh.sidecars["web"].admin("GET", "/identities")[1]
        self.assertTrue(now["source"].startswith("control plane: "), now)
        self.assertTrue(now["not_before"] < now["next_renewal"] < now["not_after"], now)

    def test_a_csr_with_a_foreign_spiffe_id_gets_its_own_pods(self):
        _, csr = self.csr(extra=("-addext", "subjectAltName=URI:spiffe://cluster.local/postern/control"))
        status, answer = self.sign(self.mesh.token("web"), csr)
        self.assertEqual(status, 200, answer)
        text = openssl("x509", "-noout", "-text", stdin=answer["chain"])
        self.assertEqual(re.findall(r"URI:(\S+)", text), [f"spiffe://cluster.local/ns/default/sa/default/pod/web/{self.mesh.uid('web')}"])
        self.assertNotIn("whatever", text)

    def test_keys_of_other_kinds_are_refused_with_the_reason(self):
        for algorithm in (("RSA", "rsa_keygen_bits:2048"), ("ED25519", None), ("EC", "ec_paramgen_curve:P-521")):
            status, answer = self.sign(self.mesh.token("web"), self.csr(algorithm=algorithm)[1])
            self.assertEqual(status, 400, answer)
            self.assertIn("expected an EC key on P-256 or P-384", answer["error"])

    def test_a_token_for_another_audience_is_refused(self):
        status, answer = self.sign(self.mesh.token("web", audience="https://kubernetes.default.svc.cluster.local"), self.csr()[1])
        self.assertEqual(status, 403, answer)
        self.assertIn("audience", answer["error"])

    def test_a_token_that_is_bound_to_no_pod_is_refused(self):
        status, answer = self.sign(self.mesh.token("web", bound=False), self.csr()[1])
        self.assertEqual(status, 403, answer)
        self.assertIn("not bound to a pod", answer["error"])

    def test_the_token_of_a_deleted_pod_is_refused(self):
        self.api.pod("gone", "default", ["10.77.0.99"])
        self.mesh.objects["gone"] = self.api.get("Pod", "gone", "default")
        token = self.mesh.token("gone")
        self.assertEqual(self.sign(token, self.csr()[1])[0], 200)
        self.api.delete("Pod", "gone", "default")
        self.assertEqual(self.sign(token, self.csr()[1])[0], 403)
        # Nor does another pod of that name change it.
        self.api.pod("gone", "default", ["10.77.0.98"])
        self.assertEqual(self.sign(token, self.csr()[1])[0], 403)

    def test_a_finished_pod_gets_none(self):
        self.api.pod("job", "default", ["10.77.0.97"])
        self.mesh.objects["job"] = self.api.get("Pod", "job", "default")
        token = self.mesh.token("job")
        self.api.pod_status("job", phase="Succeeded")
        status, answer = self.sign(token, self.csr()[1])
        self.assertEqual(status, 403, answer)
        self.assertIn("finished", answer["error"])

    def test_too_many_requests_of_one_pod_are_refused_and_others_served(self):
        token, csr = self.mesh.token("web"), self.csr()[1]
        statuses = [self.sign(token, csr)[0] for _ in range(8)]
        self.assertEqual(statuses[0], 200)
        self.assertEqual(statuses[-1], 429)
        self.assertEqual(self.sign(self.mesh.token("api"), csr)[0], 200)
        self.assertGreater(self.mesh.replicas[0].metric("postern_control_svids_refused_total", reason="too_many_for_pod"), 0)


# ctest: timeout 240
class TrustTest(CaCase):
    """A sidecar trusts the control plane by the roots of its pod's spec, and nothing else that it is told."""

    def test_a_pods_svid_does_not_pose_as_the_control_plane(self):
        # An SVID of the pod "api", as good as any, at an address where web's sidecar looks for the control plane.
        key, csr = self.csr()
        status, answer = self.sign(self.mesh.token("api"), csr)
        self.assertEqual(status, 200, answer)
        svid = Svid("", answer["chain"], key, answer["bundle"])
        server = context(svid, server=True, alpn=("postern-signing/1",))
        server.verify_mode = ssl.CERT_NONE
        rogue = self.mesh.net.pod("rogue")
        listener = rogue.listen(4433)
        sidecar = self.mesh.sidecars["web"]
        self.assertEqual(sidecar.stop(), 0, "no thread of it takes the signal for itself")
        for file in ("identity-state", "policy-state"):
            subprocess.run(["rm", "-f", f"{sidecar.state_folder}/{file}"], check=True)
        identity = {**sidecar.config["identity"]["controlPlane"], "addresses": [f"{rogue.v4}:4433"]}
        sidecar.configure(identity={"controlPlane": identity})
        sidecar.start(redirect=False)
        accepted, _ = listener.accept()
        with server.wrap_socket(accepted, server_side=True) as s:
            try:
                got = s.recv(100)
            except OSError:  # it closes as it likes
                got = b""
            self.assertEqual(got, b"", "not one byte is sent to it")
        wait_until(lambda: "not spiffe://cluster.local/postern/control" in sidecar.output(), what=sidecar.output)

    def test_a_tampered_config_map_changes_nothing(self):
        mesh_yaml = json.dumps({"trustDomain": "evil.example"})
        self.api.config_map("postern", "postern-system", {"mesh.yaml": mesh_yaml, "ca.crt": "nonsense", "roots": "nonsense"})
        self.mesh.wait_allowed("web", "api")
        self.assertIn("spiffe://cluster.local/", self.identity("web")[1])
        self.mesh.sidecars["web"].stop()
        self.mesh.sidecars["web"].start()
        self.mesh.sidecars["web"].wait_ready()
        self.mesh.wait_allowed("web", "api")

    def test_a_restarted_sidecar_goes_on_without_the_control_plane(self):
        self.mesh.wait_allowed("web", "api")
        before = self.identity("web")
        for name, peer in (("web", "api"), ("api", "web")):
            # What was looked up is kept a moment later.
            wait_until(lambda name=name, peer=peer: f"pod/default/{peer}" in self.kept_policy(name), what=f"{name} keeps its policy")
        for replica in self.mesh.replicas:
            replica.kill()
        sidecar = self.mesh.sidecars["web"]
        sidecar.process.kill()
        sidecar.start(redirect=False)
        self.mesh.wait_allowed("web", "api")
        self.assertEqual(self.identity("web"), before)


    def kept_policy(self, name):
        try:
            with open(f"{self.mesh.sidecars[name].state_folder}/policy-state", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""


# ctest: timeout 300
class ReplicasTest(CaCase):
    """Three replicas that start together make one authority, and each signs by it."""

    names, replicas, built_in = ("web",), 3, {"requestsPerSecond": 1}

    def test_too_many_requests_in_all_are_refused(self):
        csr = self.csr()[1]
        def refused():
            status, answer = self.sign("nobody's", csr)
            return status == 429 and answer
        self.assertIn("too many requests in all", wait_until(refused, what="429")["error"])
        self.assertGreater(self.mesh.replicas[0].metric("postern_control_svids_refused_total", reason="too_many"), 0)
        wait_until(lambda: self.sign(self.mesh.token("web"), csr)[0] == 200, what="its rate again")

    def test_concurrent_replicas_create_one_root(self):
        _, roots = self.mesh.secret()
        self.assertEqual(roots.count("BEGIN CERTIFICATE"), 1)
        for replica in self.mesh.replicas:
            status, answer = self.sign(self.mesh.token("web"), self.csr()[1], replica=replica)
            self.assertEqual(status, 200, answer)
            self.assertEqual(answer["bundle"], roots)
        created = sum(replica.output().count('"authority_created"') for replica in self.mesh.replicas)
        self.assertEqual(created, 1)

    def test_a_deleted_secret_is_put_back(self):
        def found():
            try:
                return self.api.get("Secret", "postern-authority", "postern-system")
            except ApiError:
                return None
        def reporters(secret):
            return {json.loads(report)["replica"] for report in (secret["metadata"].get("annotations") or {}).values()}
        everybody = {replica.replica for replica in self.mesh.replicas}
        def known(replica):
            return {report["replica"] for report in replica.admin("GET", "/ca")[1]["reports"]}
        wait_until(lambda: all(known(replica) == everybody for replica in self.mesh.replicas), 20, self.mesh.said)
        before = self.mesh.secret()[0]["active"]
        self.api.delete("Secret", "postern-authority", "postern-system")
        # With what every replica has told: a rotation that is under way must not go on without it.
        self.assertEqual(reporters(wait_until(found, what="the Secret")), everybody)
        self.assertEqual(self.mesh.secret()[0]["active"], before)


if __name__ == "__main__":
    unittest.main()
