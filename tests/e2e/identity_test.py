"""SVIDs and bundles from files: rotated under load, refused when bad, and what an expired one stops."""

import os
import shutil
import socket
import threading
import unittest

from kit.cluster import Cluster, gone, knock, metric
from kit.peer import ACCEPTED, DATA, OPEN, Ended, Peer, frame
from kit.pki import Authority
from kit.sidecar import PROXY_UID
from kit.waiting import patience, wait_until


class IdentityCase(unittest.TestCase):
    """web calls api, both with sidecars. Every test leaves them with good SVIDs."""

    CONFIG = {"limits": {"handshakeTimeout": f"{patience(2):g}s"}}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config=cls.CONFIG)
        cls.addClassCleanup(cluster.close)
        cls.web, cls.api = (cluster.pod(name, sidecar=True, app=name) for name in ("web", "api"))
        cls.app = cluster.app(cls.api, 7000)
        cluster.publish()
        cluster.start()
        cls.web_sidecar, cls.sidecar = cluster.sidecars["web"], cluster.sidecars["api"]

    @staticmethod
    def adopted(sidecar):
        return sidecar.output().count('"identity_adopted"')

    def change(self, sidecar, act):
        """Does something to the identity files and waits until the sidecar has taken it up."""
        before = self.adopted(sidecar)
        act()
        wait_until(lambda: self.adopted(sidecar) > before, what=lambda: f"the identity to be adopted:\n{sidecar.output()[-3000:]}")

    def rotate(self, sidecar, **options):
        svid = options.pop("svid", None) or self.cluster.ca.issue(sidecar.spiffe_id, **options)
        self.change(sidecar, lambda: sidecar.rotate(svid))

    def call(self):
        """One connection end to end: its records."""
        with self.web.connect(self.api.v4, 7000) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")
            port = s.getsockname()[1]
        out = self.web_sidecar.wait_record(direction="outbound", **{"source.port": port})
        into = self.sidecar.wait_record(direction="inbound", **{"connection.id": out["connection.id"], "connection.stream": out["connection.stream"]})
        self.assertEqual((out["close.reason"], into["close.reason"]), ("finished", "finished"), (out, into))
        return out, into

    def held(self):
        """A connection that stays open."""
        s = self.web.connect(self.api.v4, 7000)
        self.addCleanup(s.close)
        self.alive(s)
        return s

    def alive(self, s):
        s.sendall(b"pong")
        self.assertEqual(s.recv(4, socket.MSG_WAITALL), b"pong")


class RotationTest(IdentityCase):
    """Rotation drops no connection and fails none."""

    def under_load(self, changes):
        """Makes the changes while four threads connect without a pause: not one connection may fail."""
        failures, done, stop = [], [0], threading.Event()
        def load():
            while not stop.is_set():
                try:
                    with self.web.connect(self.api.v4, 7000) as s:
                        s.sendall(b"ping")
                        got = s.recv(4)
                        s.shutdown(socket.SHUT_WR)
                        if got != b"ping" or s.recv(1):
                            failures.append(got)
                    done[0] += 1
                except OSError as error:
                    failures.append(error)
        held = self.held()
        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for change in changes:
                seen = done[0]
                change()
                wait_until(lambda seen=seen: failures or done[0] > seen + 40, what="connections after the change")
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        self.assertEqual(failures, [])
        self.alive(held)
        bad = [r for s in (self.web_sidecar, self.sidecar) for r in s.records(**{"close.reason": lambda reason: reason != "finished"})]
        self.assertEqual(bad, [])

    def test_svids_swapped_by_a_symbolic_link_under_load(self):
        serial = lambda sidecar: sidecar.admin("GET", "/identities")[1]["serial"]
        before = serial(self.sidecar)
        self.under_load([lambda s=s: self.rotate(s) for s in (self.sidecar, self.web_sidecar) * 2])
        self.assertNotEqual(serial(self.sidecar), before)

    def test_svids_renamed_over_under_load(self):
        self.under_load([lambda s=s: self.change(s, lambda: self.rename_over(s, self.cluster.ca.issue(s.spiffe_id)))
                         for s in (self.sidecar, self.web_sidecar)])

    @staticmethod
    def rename_over(sidecar, svid):
        """Replaces the files one by one. In between, certificate and key do not fit: no error, only not yet."""
        folder = os.path.realpath(os.path.dirname(sidecar.config["identity"]["certificate"]))
        for path in svid.write(f"{folder}/next", PROXY_UID):
            os.rename(path, f"{folder}/{os.path.basename(path)}")

    def test_the_bundle_is_rotated_by_overlap_under_load(self):
        """Both trust both authorities; then one signs by the new one; then the other."""
        old, new = self.cluster.ca, Authority(f"{self.cluster.net.folder}/new-ca", self.cluster.ca.trust_domain, name="new CA")
        both = old.certificate + new.certificate
        steps = [lambda s=s: self.rotate(s, bundle=both) for s in (self.sidecar, self.web_sidecar)]
        steps += [lambda s=s: self.rotate(s, svid=new.issue(s.spiffe_id, bundle=both)) for s in (self.sidecar, self.web_sidecar)]
        steps += [lambda s=s: self.rotate(s, svid=new.issue(s.spiffe_id)) for s in (self.sidecar, self.web_sidecar)]
        self.under_load(steps)
        with Peer.connect(self.web, self.api.v4, 7000, self.cluster.svid(self.web), verify=False) as peer:
            peer.end()
            self.assertEqual(self.sidecar.wait_record(**{"source.port": peer.sock.getsockname()[1]})["close.detail"], "untrusted")
        for sidecar in (self.sidecar, self.web_sidecar):
            self.rotate(sidecar, bundle=both)
            self.rotate(sidecar)
        self.sidecar.process.stop()  # its log has the refusal above
        os.unlink(self.sidecar.log_path)
        self.cluster.start()


class BadFilesTest(IdentityCase):
    """Bad files change nothing, and are said and counted."""

    def rejected(self, act, words):
        count = metric(self.sidecar, "postern_identity_rejected_total")
        serial = self.sidecar.admin("GET", "/identities")[1]["serial"]
        held = self.held()
        act()
        wait_until(lambda: metric(self.sidecar, "postern_identity_rejected_total") > count,
                   what=lambda: f"the files to be rejected:\n{self.sidecar.output()[-3000:]}")
        now = self.sidecar.admin("GET", "/identities")[1]
        self.assertEqual(now["serial"], serial)
        self.assertRegex(now["error"], words)
        self.assertEqual(self.sidecar.health("/readyz")[0], 200)
        self.alive(held)
        self.call()
        self.rotate(self.sidecar)
        self.assertEqual(self.sidecar.admin("GET", "/identities")[1]["error"], "")
        self.alive(held)

    def good(self, **options):
        return self.cluster.ca.issue(self.sidecar.spiffe_id, **options)

    def test_a_key_of_another_certificate(self):
        svid, other = self.good(), self.good()
        svid.key = other.key
        self.rejected(lambda: self.sidecar.rotate(svid), "svid.key")

    def test_no_certificate_at_all(self):
        svid = self.good()
        svid.chain = "nonsense\n"
        self.rejected(lambda: self.sidecar.rotate(svid), "svid.pem")

    def test_an_empty_bundle(self):
        self.rejected(lambda: self.sidecar.rotate(self.good(bundle="")), "bundle.pem")

    def test_an_expired_svid(self):
        self.rejected(lambda: self.sidecar.rotate(self.good(not_before=-7200, not_after=-3600)), "expired")

    def test_an_svid_of_another_authority(self):
        other = Authority(f"{self.cluster.net.folder}/bad-ca", self.cluster.ca.trust_domain)
        self.rejected(lambda: self.sidecar.rotate(other.issue(self.sidecar.spiffe_id, bundle=self.cluster.ca.certificate)), "svid.pem")

    def test_files_that_are_gone(self):
        folder = os.path.realpath(os.path.dirname(self.sidecar.config["identity"]["certificate"]))
        self.rejected(lambda: os.unlink(f"{folder}/svid.key"), "svid.key")


class ExpiryCase(IdentityCase):
    """Sidecars whose SVIDs end soon."""

    LIFE = patience(3)

    def expire(self, sidecar):
        self.rotate(sidecar, not_after=self.LIFE)
        self.assertEqual(sidecar.health("/readyz")[0], 200)
        held = self.held()
        wait_until(lambda: sidecar.health("/readyz")[0] == 503, 20, "the SVID to expire")
        self.assertIn("expired", sidecar.health("/readyz")[1])
        self.assertLess(metric(sidecar, "postern_svid_expiry_timestamp_seconds"), 2 ** 40)
        return held


class ExpiryTest(ExpiryCase):
    """Once our own SVID has expired nothing new is made or accepted; what is live goes on; a new one mends it."""

    def test_the_outbound_side_makes_no_connection_with_an_expired_svid(self):
        self.call()  # one is pooled
        held = self.expire(self.web_sidecar)
        accepted = self.app.accepted
        own, how = knock(self.web, self.api.v4, 7000, b"ping")
        self.assertEqual(how, "reset")
        found = self.web_sidecar.wait_record(direction="outbound", **{"source.port": own})
        self.assertEqual((found["close.reason"], found["tls.established"]), ("svid_missing", False), found)
        self.assertEqual(self.app.accepted, accepted)
        self.alive(held)
        self.rotate(self.web_sidecar)
        self.web_sidecar.wait_ready()
        self.call()
        self.alive(held)

    def test_the_inbound_side_accepts_none_with_an_expired_svid(self):
        held = self.expire(self.sidecar)
        accepted = self.app.accepted
        own, how = knock(self.web, self.api.v4, 7000, b"ping", uid=PROXY_UID)
        self.assertIn(how, ("fin", "reset"))
        found = self.sidecar.wait_record(direction="inbound", **{"source.port": own})
        self.assertEqual((found["close.reason"], found["verdict"]), ("svid_missing", "DROPPED"))
        self.assertEqual(self.app.accepted, accepted)
        self.alive(held)
        self.rotate(self.sidecar)
        self.sidecar.wait_ready()
        self.call()
        self.alive(held)

    def test_a_peers_connection_gets_no_new_stream_after_its_svid_expired(self):
        svid = self.cluster.svid(self.web, not_after=patience(3) - 60)  # clocks may differ by a minute
        with Peer.connect(self.web, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            peer.send(frame(4))
            self.assertEqual(peer.frame(), (4, b""))
            accepted = self.app.accepted
            peer.send(OPEN, frame(DATA, b"evil"))
            self.assertIsInstance(peer.end(), Ended)  # and no status before: whoever is in good faith may try again
            self.assertEqual(self.app.accepted, accepted)

    def test_a_live_stream_outlives_its_svid_and_a_new_handshake_does_not(self):
        svid = self.cluster.svid(self.web, not_after=patience(3) - 60)
        with Peer.connect(self.web, self.api.v4, 7000, svid) as peer:
            self.assertEqual(peer.open(b"ping"), (ACCEPTED, 0))
            self.assertEqual(peer.data(4), b"ping")
            wait_until(lambda: self.late(svid), 20, "the peer's SVID to expire")
            peer.send(frame(DATA, b"pong"))
            self.assertEqual(peer.data(4), b"pong")

    def late(self, svid):
        with Peer.connect(self.web, self.api.v4, 7000, svid, verify=False) as probe:
            probe.end()
            return self.sidecar.wait_record(**{"source.port": probe.sock.getsockname()[1]}).get("close.detail") == "expired"


class AgeTest(ExpiryCase):
    """limits.maxConnectionAge: how long what is live goes on."""

    CONFIG = {"limits": {"handshakeTimeout": f"{patience(2):g}s", "maxConnectionAge": "1s"}}

    def test_live_connections_end_that_long_after_the_svid(self):
        held = self.expire(self.web_sidecar)
        self.alive(held)
        self.assertEqual(gone(held), "reset")
        out = self.web_sidecar.wait_record(direction="outbound", **{"source.port": held.getsockname()[1]})
        self.assertEqual((out["close.reason"], out["close.by"]), ("svid_missing", "proxy"), out)
        self.sidecar.wait_record(direction="inbound", **{"connection.id": out["connection.id"], "close.reason": "reset"})

    def test_a_new_svid_in_time_keeps_them(self):
        held = self.expire(self.sidecar)
        self.rotate(self.sidecar)
        other = self.expire(self.web_sidecar)  # a second's age passes for the other side meanwhile
        self.assertEqual((gone(other), gone(held)), ("reset", "reset"))
        self.assertEqual([r["close.reason"] for r in self.sidecar.records(direction="inbound", **{"close.reason": "svid_missing"})], [])


class NoSvidTest(unittest.TestCase):
    """A sidecar whose identity files come later."""

    def test_without_an_svid_nothing_goes_and_with_one_everything_does(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        web, api = (cluster.pod(name, sidecar=True, app=name) for name in ("web", "api"))
        app = cluster.app(api, 7000)
        cluster.publish()
        sidecar = cluster.sidecars["web"]
        folder = os.path.dirname(sidecar.config["identity"]["certificate"])
        real = os.path.realpath(folder)
        shutil.rmtree(real)
        os.mkdir(real)
        cluster.start()
        status, text = sidecar.health("/readyz")
        self.assertEqual(status, 503)
        self.assertIn("no SVID", text)
        self.assertEqual(metric(sidecar, "postern_svid_expiry_timestamp_seconds"), 0)
        own, how = knock(web, api.v4, 7000, b"ping")
        self.assertEqual(how, "reset")
        self.assertEqual(sidecar.wait_record(**{"source.port": own})["close.reason"], "svid_missing")
        self.assertEqual(app.accepted, 0)
        sidecar.rotate(cluster.svid(web))
        sidecar.wait_ready()
        with web.connect(api.v4, 7000) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")


if __name__ == "__main__":
    unittest.main()
