"""Private keys stay where they belong: gone from memory after a rotation, in no log, in no dump."""

import base64
import os
import re
import socket
import unittest

from kit.cluster import Cluster, gone
from kit.pki import openssl
from kit.waiting import wait_until


def forms_of(key_pem):
    """What a key looks like in memory: the text of its PEM, its DER, and its number in both byte orders."""
    lines = [line for line in key_pem.splitlines() if line and not line.startswith("-----")]
    der = base64.b64decode("".join(lines))
    text = openssl("pkey", "-noout", "-text", stdin=key_pem)
    number = bytes.fromhex(re.search(r"priv:([\s0-9a-f:]+)pub:", text).group(1).replace(":", "").replace(" ", "").replace("\n", ""))[-32:]
    return {"PEM": lines[0].encode(), "DER": number, "number": number[::-1], "start of the DER": der[30:60]}


def found_in_memory(pid, forms):
    """Which of these stand anywhere in the memory of the process, and where."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, access, rest = line.split(None, 2)
            if "r" not in access or "[v" in rest:
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            found += [f"{name} in {line.strip()}" for name, form in forms.items() if form in content]
    return found


# Under the sanitizers most of the address space is mapped, and cannot be searched.
# ctest: release only
class KeyMemoryTest(unittest.TestCase):
    """web calls api; api's SVID is rotated."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster(config={"logLevel": "debug"})
        cls.addClassCleanup(cluster.close)
        cls.web, cls.api = (cluster.pod(name, sidecar=True, app=name) for name in ("web", "api"))
        cls.app = cluster.app(cls.api, 7000)
        cluster.publish()
        cluster.start()
        cls.sidecar = cluster.sidecars["api"]
        cls.pid = cls.sidecar.process.pid
        cls.keys = [cls.read_key()]

    @classmethod
    def read_key(cls):
        with open(cls.sidecar.config["identity"]["key"], encoding="ascii") as file:
            return file.read()

    def call(self):
        with self.web.connect(self.api.v4, 7000) as s:
            s.sendall(b"ping")
            self.assertEqual(s.recv(4), b"ping")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(gone(s), "fin")

    def rotate(self, svid=None):
        adopted = lambda: self.sidecar.output().count('"identity_adopted"')
        before = adopted()
        svid = svid or self.cluster.svid(self.api)
        self.sidecar.rotate(svid)
        wait_until(lambda: adopted() > before, what=lambda: self.sidecar.output()[-2000:])
        self.keys.append(svid.key)

    def test_a_rotated_key_is_nowhere_in_memory(self):
        for _ in range(3):
            self.call()
            self.rotate()
        self.call()
        number = lambda key: {name: form for name, form in forms_of(key).items() if name == "number"}
        self.assertTrue(found_in_memory(self.pid, number(self.keys[-1])), "the key in use is found: the search works")
        for key in self.keys[:-1]:
            wait_until(lambda key=key: not found_in_memory(self.pid, forms_of(key)),
                       what=lambda key=key: f"an old key to be gone; found: {found_in_memory(self.pid, forms_of(key))}")

    def test_a_connection_that_lives_on_does_not_keep_the_key_it_was_made_with(self):
        with self.web.connect(self.api.v4, 7000) as live:
            live.sendall(b"ping")
            self.assertEqual(live.recv(4), b"ping")
            self.rotate()
            old = forms_of(self.keys[-2])
            wait_until(lambda: not found_in_memory(self.pid, old), what=lambda: f"the old key to be gone; found: {found_in_memory(self.pid, old)}")
            live.sendall(b"pong")
            self.assertEqual(live.recv(4), b"pong")

    def test_of_the_key_in_use_only_the_number_is_in_memory(self):
        self.rotate()
        forms = forms_of(self.keys[-1])
        self.assertEqual({place.split(" in ")[0] for place in found_in_memory(self.pid, forms)}, {"number"})

    def test_a_refused_key_is_nowhere_in_memory(self):
        svid, other = self.cluster.svid(self.api), self.cluster.svid(self.api)
        svid.key = other.key
        rejected = lambda: self.sidecar.output().count('"identity_rejected"')
        before = rejected()
        self.sidecar.rotate(svid)
        wait_until(lambda: rejected() > before, what=lambda: self.sidecar.output()[-2000:])
        self.assertEqual(found_in_memory(self.pid, forms_of(other.key)), [])
        self.rotate()

    def test_no_log_and_no_answer_has_a_key(self):
        self.call()
        self.rotate()
        said = self.sidecar.output() + "".join(str(self.sidecar.admin("GET", route)[1]) for route in ("/config", "/identities", "/connections",
                                                                                                       "/allow-list", "/metrics"))
        with open(self.sidecar.log_path, encoding="utf-8") as file:
            said += file.read()
        self.assertIn('"identity_adopted"', said)
        for key in self.keys:
            forms = forms_of(key)
            for text in (forms["PEM"].decode(), forms["DER"].hex(), forms["DER"].hex().upper(), base64.b64encode(forms["DER"]).decode(), "PRIVATE KEY"):
                self.assertNotIn(text, said)


class DumpTest(unittest.TestCase):
    """No core dump, whatever the limits of whoever starts it."""

    def test_the_process_is_not_dumpable(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        api = cluster.pod("api", sidecar=True, app="api")
        cluster.publish()
        sidecar = cluster.sidecars["api"]
        cluster.start()
        with open(f"/proc/{sidecar.process.pid}/limits", encoding="ascii") as file:
            self.assertRegex(file.read(), r"Max core file size +0 +0 ")
        # The kernel gives what belongs to a process that may not be dumped to root.
        self.assertEqual(os.stat(f"/proc/{sidecar.process.pid}/mem").st_uid, 0)
        self.assertNotEqual(sidecar.uid, 0)
        as_itself = api.run(["cat", f"/proc/{sidecar.process.pid}/environ"], uid=sidecar.uid)
        self.assertNotEqual(as_itself.returncode, 0, "its own user cannot read its memory, nor attach to it")


if __name__ == "__main__":
    unittest.main()
