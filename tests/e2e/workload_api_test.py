"""A SPIFFE Workload API that misbehaves: the sidecar keeps its last good SVID, says why in its log, backs off, and goes on."""

import os
import re
import socket
import time
import unittest

from kit.cluster import Cluster, gone, pod_object
from kit.pki import openssl
from kit.sidecar import Sidecar
from kit.waiting import patience, wait_until
from kit.workload_api import WorkloadApi, denied, der_of, ended, entry, message, saying


class ApiCase(unittest.TestCase):
    """web takes its SVID from the API and calls api, whose sidecar has files."""

    choice = {}

    def setUp(self):
        self.cluster = cluster = Cluster()
        self.addCleanup(cluster.close)
        api = cluster.pod("api", sidecar=True, app="api")
        self.web = cluster.net.pod("web")
        cluster.records["web"] = pod_object(self.web, app="web")
        self.app = cluster.app(api, 7000)
        self.address = api.v4
        self.api = WorkloadApi(f"{cluster.net.folder}/api")
        config = {"drainPeriod": "300ms", "identity": {"workloadApi": {"enabled": True, "socket": self.api.endpoint, **self.choice}}}
        self.sidecar = Sidecar(self.web, None, cluster.policies, pod_uid="u-web", trust_domain=cluster.ca.trust_domain, config=config)
        cluster.sidecars["web"] = self.sidecar
        cluster.publish(wait=False)
        cluster.start()
        self.addCleanup(self.api.stop)

    def svid(self):
        return self.cluster.ca.issue(self.sidecar.spiffe_id)

    def adopted(self):
        """The serial numbers of the SVIDs taken up so far."""
        return re.findall(r'"identity_adopted".*?"serial":"([^"]*)"', self.sidecar.output())

    def wait_adopted(self, count):
        wait_until(lambda: len(self.adopted()) >= count, 20, lambda: f"{count} SVIDs:\n{self.sidecar.output()[-3000:]}")

    def wait_said(self, event, what, deadline=20.0):
        self.sidecar.process.wait_for_output(f'"{event}".*{what}', deadline)

    def call(self):
        with self.web.connect(self.address, 7000) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")

    def begin(self):
        self.api.answer(message(entry(self.svid())))
        self.api.start()
        self.wait_adopted(1)
        self.sidecar.wait_ready()
        self.call()


# ctest: timeout 240
# ctest: release only
class MisbehavingApiTest(ApiCase):
    """After a good start."""

    def test_what_it_says_wrongly_changes_nothing_and_is_said(self):
        self.begin()
        svid, other = self.svid(), self.svid()
        wrong = {
            "an answer without an SVID": message(),
            "certificate chain: ": message(entry(svid, chain=b"\x30\x82garbage")),
            "no usable private key": message(entry(svid, key=b"garbage")),
            "not that of the first certificate": message(entry(svid, key=der_of(other.key))),
            "trust bundle: ": message(entry(svid, bundle=b"garbage")),
            "the certificate is for": message(entry(svid, spiffe_id="spiffe://example.org/another")),
            "65 SVIDs; at most 64": message(*[entry(svid)] * 65),
        }
        for why, answer in wrong.items():
            with self.subTest(why=why):
                self.api.answer(answer)
                self.wait_said("identity_rejected", why)
                self.assertEqual(len(self.adopted()), 1)
                self.call()
        for why, behaviour in {r"INTERNAL|UNKNOWN": saying(b"\xff\xff\xff"), "RESOURCE_EXHAUSTED": saying(bytes(5 << 20)),
                               "PERMISSION_DENIED .*no identity issued": denied, "ended the stream": ended}.items():
            with self.subTest(why=why):
                self.api.behave(behaviour)
                self.wait_said("identity_warning", why)
                self.assertEqual(len(self.adopted()), 1)
                self.call()
        self.api.answer(message(entry(svid)))
        self.wait_adopted(2)
        self.call()
        self.assertNotIn("PRIVATE", self.sidecar.output())

    def test_it_dies_and_comes_back(self):
        self.begin()
        self.api.stop()
        self.wait_said("identity_warning", "UNAVAILABLE")
        self.call()
        self.api.answer(message(entry(self.svid())))
        self.api.start()
        self.wait_adopted(2)
        self.call()

    def test_a_flood_of_updates_is_taken_up_at_a_bounded_rate(self):
        self.begin()
        answers = [message(entry(self.svid())) for _ in range(2)]
        sent = 0
        def flood(call):
            nonlocal sent
            while call.is_active():
                sent += 1
                yield answers[sent % 2]
        self.api.behave(flood)
        self.wait_adopted(3)
        before, since = len(self.adopted()), time.monotonic()
        self.wait_adopted(before + 20)
        self.assertGreater(time.monotonic() - since, 1.5, "ten a second at most")
        self.call()
        self.assertGreater(sent, 20)
        last = self.svid()
        self.api.answer(message(entry(last)))
        serial = openssl("x509", "-noout", "-serial", stdin=last.chain).strip().split("=")[1]
        wait_until(lambda: self.adopted()[-1] == serial, 20, lambda: self.sidecar.output()[-2000:])
        self.call()

    def test_it_is_asked_again_later_and_later(self):
        self.begin()
        self.api.answer(message(entry(self.svid())))
        self.wait_adopted(2)
        # An update before the end is no reason to come back at once.
        before = len(self.api.calls)
        self.api.behave(saying(message(entry(self.svid())), then=ended))
        wait_until(lambda: len(self.api.calls) >= before + 5, 30, lambda: str(self.api.calls))
        gaps = [later - earlier for earlier, later in zip(self.api.calls[before:], self.api.calls[before + 1:])]
        self.assertGreater(gaps[3], 0.9, gaps)  # half of 2 s at least, by now
        self.assertGreater(gaps[3], gaps[0], gaps)
        self.call()


# ctest: timeout 240
# ctest: release only
class NoAnswerTest(ApiCase):
    """From the start."""

    def test_a_server_that_never_answers_is_named_and_asked_again(self):
        self.api.start()
        self.wait_said("identity_rejected", "no answer for 10 s", 30)
        self.assertIn("no answer for 10 s", self.sidecar.health("/readyz")[1])
        self.api.answer(message(entry(self.svid())))
        self.wait_adopted(1)
        self.call()

    def test_a_socket_that_speaks_no_grpc(self):
        os.makedirs(os.path.dirname(self.api.path), exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.api.path)
            os.chmod(self.api.path, 0o666)
            listener.listen()
            listener.settimeout(patience(20))
            with listener.accept()[0] as s:
                s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.wait_said("identity_rejected", "UNAVAILABLE")
        os.unlink(self.api.path)
        self.api.answer(message(entry(self.svid())))
        self.api.start()
        self.wait_adopted(1)
        self.call()


# ctest: release only
class HintTest(ApiCase):
    """Two SVIDs, and the configuration says which by its hint."""

    choice = {"hint": "internal"}

    def test_the_one_that_is_meant_or_an_error_that_lists_what_there_is(self):
        external = self.cluster.ca.issue(f"{self.sidecar.spiffe_id}x")
        self.api.answer(message(entry(external, hint="external"), entry(self.svid(), hint="internal")))
        self.api.start()
        self.wait_adopted(1)
        self.call()
        self.api.answer(message(entry(external, hint="external")))
        self.wait_said("identity_rejected", r"hint internal.*there are: .*x \(hint external\)")
        self.call()
        self.api.answer(message(entry(self.svid(), hint="internal"), entry(external, hint="internal")))  # the first of the same hint
        self.wait_adopted(2)
        self.call()
        self.assertNotIn(external.spiffe_id + '"', "".join(re.findall('"identity_adopted".*', self.sidecar.output())))


if __name__ == "__main__":
    unittest.main()
