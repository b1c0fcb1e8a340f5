"""The built-in CA's authority is replaced, by hand, by its age, or because a given one changes, while SVIDs live for seconds and connections come
all the time: none is refused, none is cut."""

import base64
import json
import signal
import threading
import time
import unittest

from authority_test import CaCase

from kit.control import Control
from kit.pki import Authority, openssl
from kit.processes import run
from kit.sidecar import program
from kit.waiting import wait_until


class Load(threading.Thread):
    """New connections from one pod to another, one after the other, a hundred or so a second, until stop(): each must echo. Faster, and a test
    of half a minute would run out of the pod's ports, which TCP keeps for a minute."""

    def __init__(self, mesh, source, target):
        super().__init__(daemon=True)
        self.mesh, self.source, self.target = mesh, source, target
        self.done, self.failures, self._end = 0, [], threading.Event()

    def run(self):
        while not self._end.wait(0.008):
            how = self.mesh.reach(self.source, self.target)
            self.done += 1
            if how != b"ping":
                self.failures.append((time.time(), how))

    def stop(self):
        self._end.set()
        self.join()


class RotationCase(CaCase):
    """web and api, which call each other."""

    built_in = {"svidTtl": "8s", "lifetime": "24h", "podRequestsPerMinute": 1000}

    def ca(self, *arguments, replica=None, deadline=120):
        """posternctl ca: the CompletedProcess."""
        control = (replica or self.mesh.replicas[0]).admin_path
        return self.mesh.kube_pod.run([program("posternctl"), "ca", *arguments, "--control", control], deadline=deadline)

    def begin_load(self):
        self.mesh.wait_allowed("web", "api")
        self.mesh.wait_allowed("api", "web")
        self.old = self.mesh.open("web", "api")  # one that stays open for the whole of it
        self.addCleanup(self.old.close)
        self.loads = [Load(self.mesh, source, target) for source, target in (("web", "api"), ("api", "web")) * 2]
        self.seen = {name: len(self.mesh.sidecars[name].records()) for name in ("web", "api")}
        self.began = time.monotonic()
        for load in self.loads:
            load.start()
            self.addCleanup(load.stop)

    def end_load(self, at_least=500):
        for load in self.loads:
            load.stop()
        took, count = time.monotonic() - self.began, sum(load.done for load in self.loads)
        self.assertEqual([failure for load in self.loads for failure in load.failures], [], f"of {count} connections\n{self.mesh.said()}")
        self.old.sendall(b"still")
        self.assertEqual(self.old.recv(5), b"still")
        for name, before in self.seen.items():
            since = self.mesh.sidecars[name].records()[before:]
            self.assertEqual([record for record in since if record["close.reason"] != "finished"], [])
        self.assertGreater(count, at_least, "it was under load")
        print(f"{count} connections in {took:.1f} s ({count / took:.0f} a second), none refused", flush=True)

    def phase(self):
        return self.mesh.secret()[0]["phase"]

    def wait_phase(self, phase, deadline=60):
        wait_until(lambda: self.phase() == phase, deadline, lambda: f"{phase}\n{self.mesh.said()}")


# ctest: timeout 400
# ctest: release only
class RotationTest(RotationCase):
    """One replica."""

    def test_no_connection_is_dropped_or_refused_in_the_whole_of_it(self):
        before, old_roots = self.mesh.secret()
        self.begin_load()
        done = self.ca("rotate", "--wait", "--deadline", "100s")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.mesh.said())
        after, roots = self.mesh.secret()
        self.assertEqual(after["phase"], "steady")
        self.assertNotEqual(after["active"]["chain"], before["active"]["chain"])
        self.assertNotIn(old_roots, roots)
        self.end_load()

    def test_a_sidecar_that_does_not_acknowledge_is_waited_for(self):
        with self.mesh.raw_stream("web", self.svid_of("web")) as stream:
            self.mesh.sidecars["web"].process.kill()
            stream.hello()
            stream.ack(stream.until("update"))
            self.assertEqual(self.ca("rotate").returncode, 0)
            update = stream.until("update")
            self.assertIn("trust-bundle", [resource["name"] for resource in update["resources"]])
            self.assertIn("default/web", self.ca("status").stdout)
            self.assertEqual(self.phase(), "publishing")
            stream.ack(update)
            self.wait_phase("signing")

    def test_it_goes_on_after_a_crash_in_each_step(self):
        replica, web = self.mesh.replicas[0], self.mesh.sidecars["web"]
        self.mesh.wait_allowed("web", "api")
        first = self.mesh.secret()[0]
        # Publishing lasts for as long as a sidecar that is connected says nothing.
        web.process.send(signal.SIGSTOP)
        try:
            self.assertEqual(self.ca("rotate").returncode, 0)
            self.wait_phase("publishing")
            replica.kill()
            replica.start()
        finally:
            web.process.send(signal.SIGCONT)
        self.wait_phase("signing")
        replica.kill()
        replica.start()
        last = wait_until(lambda: (state := self.mesh.secret()[0])["phase"] == "steady" and state, 90, self.mesh.said)
        self.assertNotEqual(last["active"]["chain"], first["active"]["chain"])
        self.assertEqual(last["sequence"], first["sequence"] + 2, "one rotation, and no step twice")
        self.mesh.wait_allowed("web", "api")


# ctest: timeout 400
# ctest: release only
class ReplicasRotationTest(RotationCase):
    """Three replicas, sidecars on different ones; one is killed while the new root is published, another one while both are trusted."""

    names, replicas, built_in = ("web", "api", "slow"), 2, {**RotationCase.built_in, "svidTtl": "6s"}
    options = {"start": False}

    def setUp(self):
        super().setUp()
        pod = self.mesh.net.pod("control-3")
        config = {name: self.mesh.replicas[0].config[name] for name in ("mesh", "authority")}
        self.mesh.replicas.append(Control(f"{pod.folder}/control", self.mesh.kube.kubeconfig, pod=pod, config=config))
        self.one, self.two, self.three = self.mesh.replicas
        # Each sidecar knows two of them for its stream, and of those only one is there when it starts.
        for name, own in (("web", self.one), ("api", self.two)):
            sidecar = self.mesh.sidecars[name]
            sidecar.configure(control={"addresses": [own.address, self.three.address]},
                              identity={"controlPlane": {"addresses": [replica.signing_address for replica in self.mesh.replicas]}})
            sidecar.start()
            sidecar.wait_ready()
        self.three.start()

    def serving(self):
        return {name: self.mesh.serving(name) for name in ("web", "api")}

    def reports(self, replica):
        """What each replica has told of the bundle that it publishes and of the sidecars that lag, by its name; the newest of each."""
        told = sorted(replica.admin("GET", "/ca")[1]["reports"], key=lambda report: report["at"])
        return {report["replica"]: (report["bundleSequence"], report["lagging"]) for report in told}

    def test_a_replica_dies_in_each_phase(self):
        self.assertEqual(self.serving(), {"web": self.one, "api": self.two})
        first = self.mesh.secret()[0]
        self.begin_load()
        with self.mesh.raw_stream("slow", self.svid_of("slow"), replica=self.one) as stream:
            stream.hello()
            stream.ack(stream.until("update"))
            self.assertEqual(self.ca("rotate", replica=self.two).returncode, 0)
            update = stream.until("update")
            self.assertIn("trust-bundle", [resource["name"] for resource in update["resources"]])
            # All the others have acknowledged, each to the replica that serves it; nobody goes on without the one that has not.
            new = first["sequence"] + 1
            wait_until(lambda: self.reports(self.three) == {"control-1": (new, 1), "control-2": (new, 0), "control-3": (new, 0)}, 20,
                       lambda: f"{self.reports(self.three)}\n{self.mesh.said()}")
            self.two.kill()
            wait_until(lambda: self.mesh.serving("api") == self.three, 20, self.mesh.said)
            self.assertEqual(self.phase(), "publishing")
            stream.ack(update)
            self.wait_phase("signing", 20)
        self.one.kill()
        wait_until(lambda: self.mesh.serving("web") == self.three, 20, self.mesh.said)
        self.assertEqual(self.phase(), "signing")
        self.two.start()
        self.wait_phase("steady")
        last = self.mesh.secret()[0]
        self.end_load()
        self.assertNotEqual(last["active"]["chain"], first["active"]["chain"])
        self.assertEqual(last["sequence"], first["sequence"] + 2, "one rotation, and no step twice")


# ctest: timeout 240
# ctest: release only
class AutomaticRotationTest(RotationCase):
    """After two thirds of the lifetime of a self-created authority, which begins 30 s in the past, another one takes its place."""

    built_in = {**RotationCase.built_in, "svidTtl": "5s", "lifetime": "45s"}

    def test_an_authority_is_replaced_before_it_ends(self):
        first, old_roots = self.mesh.secret()
        self.begin_load()
        self.assertEqual(first["phase"], "steady")
        wait_until(lambda: self.mesh.secret()[0]["sequence"] == first["sequence"] + 2, 90, self.mesh.said)
        last, roots = self.mesh.secret()
        self.assertNotEqual(last["active"]["chain"], first["active"]["chain"])
        self.assertNotIn(old_roots, roots)
        expires = openssl("x509", "-noout", "-checkend", "0", stdin=first["active"]["chain"])
        self.assertIn("will not expire", expires, "the old one is valid yet: there was time")
        self.end_load()


# ctest: timeout 240
# ctest: release only
class GivenAuthorityTest(RotationCase):
    """authority.givenSecret: what `posternctl ca init` prints, then what cert-manager writes, and in between what is wrong."""

    built_in = {**RotationCase.built_in, "svidTtl": "6s", "givenSecret": "postern-ca"}

    def setUp(self):
        made = run([program("posternctl"), "ca", "init", "--trust-domain", "cluster.local"], check=True).stdout
        self.options = {"objects": [json.loads(made)]}
        super().setUp()
        self.given = json.loads(made)["stringData"]

    def give(self, **files):
        """Changes keys of the Secret, as cert-manager would: data; a key that is None goes."""
        names = {"crt": "tls.crt", "key": "tls.key", "ca": "ca.crt"}
        data = {names[name]: value and base64.b64encode(value.encode()).decode() for name, value in files.items()}
        self.api.patch("Secret", "postern-ca", {"data": data}, "postern-system")

    def cert_manager_ca(self, extensions=None, trust_domain="cluster.local"):
        """(tls.crt, tls.key, ca.crt) of a Certificate with isCA: true below a root: no URI SAN, no path length, an EC PRIVATE KEY block."""
        root = Authority(f"{self.mesh.net.folder}/root-{time.monotonic_ns()}", trust_domain)
        made = root.issue("", subject="/CN=mesh CA", extensions=extensions or (
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,keyCertSign\nsubjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"))
        return made.chain, openssl("ec", stdin=made.key), root.certificate

    def test_it_is_used_and_a_bad_one_is_not_and_a_new_one_is_rotated_in(self):
        replica = self.mesh.replicas[0]
        first, roots = self.mesh.secret()
        self.assertEqual((first["active"]["chain"], first["active"]["key"], roots),
                         (self.given["tls.crt"], self.given["tls.key"], self.given["ca.crt"]))
        status = self.ca("status")
        self.assertEqual(status.returncode, 0, status.stdout + status.stderr)
        self.assertRegex(status.stdout, r"source +the Secret postern-ca\n(?s:.*)phase +steady")
        refused = self.ca("rotate")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("replace that one, and it is rotated", refused.stderr)

        self.begin_load()
        crt, key, ca = self.cert_manager_ca()
        leaf = self.cert_manager_ca("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n")
        for why, files in (("expected one unencrypted PEM PRIVATE KEY", {"key": "nonsense"}),
                           ("not that of its signing certificate", {"key": key}),
                           ("roots: trust bundle: holds no certificate", {"key": self.given["tls.key"], "ca": None}),
                           ("no SVID of this authority would be accepted: ", {"ca": ca}),
                           ("the signing certificate is no CA certificate", dict(zip(("crt", "key", "ca"), leaf)))):
            with self.subTest(why=why):
                self.give(**files)
                wait_until(lambda why=why: why in replica.output(), 10, replica.output)
                status = self.ca("status")
                self.assertEqual(status.returncode, 1, status.stdout)
                self.assertRegex(status.stdout, f"error +the Secret postern-system/postern-ca: .*{why}")
        serial = self.identity("web")[0]
        wait_until(lambda: self.identity("web")[0] != serial, 20, self.mesh.said)  # the last good one goes on signing
        self.assertEqual(self.mesh.secret()[0], first)

        self.give(crt=crt, key=key, ca=ca)
        wait_until(lambda: (state := self.mesh.secret()[0])["phase"] == "steady" and state["sequence"] == first["sequence"] + 2, 60, self.mesh.said)
        last, roots = self.mesh.secret()
        self.assertEqual((last["active"]["chain"], roots), (crt, ca))
        serial = self.identity("web")[0]
        wait_until(lambda: self.identity("web")[0] != serial, 20, self.mesh.said)
        self.end_load()
        status = self.ca("status")
        self.assertEqual(status.returncode, 0, status.stdout)
        for secret in (self.given["tls.key"], key):
            self.assertNotIn(secret.splitlines()[1], replica.output() + status.stdout)


if __name__ == "__main__":
    unittest.main()
