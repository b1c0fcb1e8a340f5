"""The built-in CA: postern-control signs SVIDs for pods that a real API server vouches for."""

import json
import re
import signal
import ssl
import subprocess
import threading
import time
import unittest

from kit.controlled import ControlledMesh
from kit.kube import ApiError
from kit.peer import context
from kit.pki import Svid, openssl
from kit.sidecar import program
from kit.waiting import wait_until


class CaCase(unittest.TestCase):
    names, replicas, built_in = ("web", "api"), 1, {}

    def setUp(self):
        self.mesh = ControlledMesh(*self.names, replicas=self.replicas, built_in={"enabled": True, **self.built_in})
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

    names, replicas = ("web",), 3

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
        before = self.mesh.secret()
        self.api.delete("Secret", "postern-authority", "postern-system")
        def back():
            try:
                return self.mesh.secret()
            except ApiError:
                return None
        self.assertEqual(wait_until(back, what="the Secret")[0]["active"], before[0]["active"])


class Load(threading.Thread):
    """New connections from one pod to another, one after the other, until stop(): each must echo."""

    def __init__(self, mesh, source, target):
        super().__init__(daemon=True)
        self.mesh, self.source, self.target = mesh, source, target
        self.done, self.failures, self._end = 0, [], threading.Event()

    def run(self):
        while not self._end.is_set():
            how = self.mesh.reach(self.source, self.target)
            self.done += 1
            if how != b"ping":
                self.failures.append((time.time(), how))

    def stop(self):
        self._end.set()
        self.join()


# ctest: timeout 400
class RotationTest(CaCase):
    """The root is replaced while SVIDs live for seconds and hundreds of connections come each second: none is refused, none is cut."""

    built_in = {"svidTtl": "8s", "lifetime": "24h", "podRequestsPerMinute": 1000}

    def rotate(self, *arguments, deadline=120):
        replica = self.mesh.replicas[0]
        return self.mesh.kube_pod.run([program("posternctl"), "ca", "rotate", *arguments, "--control", replica.admin_path], deadline=deadline)

    def test_no_connection_is_dropped_or_refused_in_the_whole_of_it(self):
        self.mesh.wait_allowed("web", "api")
        before, old_roots = self.mesh.secret()
        # As applications do: a connection each, all the time; and one that stays open for the whole of it.
        old = self.mesh.open("web", "api")
        loads = [Load(self.mesh, "web", "api"), Load(self.mesh, "api", "web")]
        for load in loads:
            load.start()
        records = {name: len(self.mesh.sidecars[name].records()) for name in self.names}
        began = time.monotonic()
        done = self.rotate("--wait", "--deadline", "100s")
        took = time.monotonic() - began
        for load in loads:
            load.stop()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.mesh.said())
        after, roots = self.mesh.secret()
        self.assertEqual(after["phase"], "steady")
        self.assertNotEqual(after["active"]["chain"], before["active"]["chain"])
        self.assertNotIn(old_roots, roots)
        count = sum(load.done for load in loads)
        self.assertEqual([load.failures for load in loads], [[], []], f"of {count} connections\n{self.mesh.said()}")
        old.sendall(b"still")
        self.assertEqual(old.recv(5), b"still")
        self.assertGreater(count, 500, "it was under load")
        for name in self.names:
            since = self.mesh.sidecars[name].records()[records[name]:]
            self.assertEqual([record for record in since if record["close.reason"] != "finished"], [])
        print(f"{count} connections in {took:.1f} s, none refused", flush=True)

    def test_a_sidecar_that_does_not_acknowledge_is_waited_for(self):
        with self.mesh.raw_stream("web", self.svid_of("web")) as stream:
            self.mesh.sidecars["web"].process.kill()
            stream.hello()
            stream.ack(stream.until("update"))
            self.assertEqual(self.rotate().returncode, 0)
            update = stream.until("update")
            self.assertIn("trust-bundle", [resource["name"] for resource in update["resources"]])
            self.assertIn("default/web", self.mesh.kube_pod.run(
                [program("posternctl"), "ca", "status", "--control", self.mesh.replicas[0].admin_path]).stdout)
            self.assertEqual(self.mesh.secret()[0]["phase"], "publishing")
            stream.ack(update)
            wait_until(lambda: self.mesh.secret()[0]["phase"] != "publishing", 30, self.mesh.said)

    def test_it_goes_on_after_a_crash_in_each_step(self):
        replica, web = self.mesh.replicas[0], self.mesh.sidecars["web"]
        self.mesh.wait_allowed("web", "api")
        first = self.mesh.secret()[0]
        # Publishing lasts for as long as a sidecar that is connected says nothing.
        web.process.send(signal.SIGSTOP)
        try:
            self.assertEqual(self.rotate().returncode, 0)
            wait_until(lambda: self.mesh.secret()[0]["phase"] == "publishing", 30, self.mesh.said)
            replica.kill()
            replica.start()
        finally:
            web.process.send(signal.SIGCONT)
        wait_until(lambda: self.mesh.secret()[0]["phase"] == "signing", 60, self.mesh.said)
        replica.kill()
        replica.start()
        last = wait_until(lambda: (state := self.mesh.secret()[0])["phase"] == "steady" and state, 90, self.mesh.said)
        self.assertNotEqual(last["active"]["chain"], first["active"]["chain"])
        self.assertEqual(last["sequence"], first["sequence"] + 2, "one rotation, and no step twice")
        self.mesh.wait_allowed("web", "api")

    def svid_of(self, name):
        key, csr = self.csr()
        status, answer = self.sign(self.mesh.token(name), csr)
        self.assertEqual(status, 200, answer)
        return Svid("", answer["chain"], key, answer["bundle"])


if __name__ == "__main__":
    unittest.main()
