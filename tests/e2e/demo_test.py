"""The demo as people start it: it passes, it notices what is not as expected, and it leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from kit.waiting import patience, wait_until

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
RESET = (56, 7)  # what curl says of a connection that is reset: 7 where that comes before it has looked whether it is connected


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.name = f"dt{os.getpid()}"
        self.addCleanup(self.nothing_is_left)
        self.output = tempfile.TemporaryFile("w+")
        self.addCleanup(self.output.close)

    def start(self, *arguments):
        process = subprocess.Popen([sys.executable, f"{ROOT}/demo/demo.py", "--name", self.name, *arguments], stdout=self.output,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        self.addCleanup(process.kill)
        return process

    def said(self):
        self.output.seek(0)
        return self.output.read()

    def demo(self, *arguments, status):
        """Runs it to its end and returns what it printed."""
        returned = self.start(*arguments).wait(patience(120))
        self.assertEqual(returned, status, self.said())
        return self.said()

    def nothing_is_left(self):
        self.assertEqual([n for n in os.listdir("/run/netns") if n.startswith(f"{self.name}-")], [])
        self.assertEqual([n for n in os.listdir(tempfile.gettempdir()) if n.startswith(f"postern-{self.name}-")], [])

    def test_everything_is_as_expected(self):
        said = self.demo(status=0)
        self.assertRegex(said, r"\n(\d+) attempts, \1 as expected, 0 different")
        for step in ("i", "ii", "iii", "iv", "v", "vi"):
            self.assertIn(f"\n({step}) ", said)
        self.assertRegex(said, r"until the intruder's connection was cut: \d+ ms")
        self.assertRegex(said, r"frontend +inbound +AUDIT +finished")
        self.assertNotIn("\033", said)  # colours are for terminals

    def test_with_the_control_plane(self):
        """The same rows where the policies come from a real API server, and `posternctl status --wait` says when they are in force."""
        said = self.demo("--control", status=0)
        self.assertRegex(said, r"\n(\d+) attempts, \1 as expected, 0 different")
        self.assertIn("kubectl apply", said)

    def test_whole_records(self):
        self.assertRegex(self.demo("--records", "full", status=0), r'\n +3 backend \{"@timestamp":.*"close.reason": "denied"')

    def test_a_policy_that_lets_too_much_through_is_noticed(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in os.listdir(f"{ROOT}/demo/manifests"):
                with open(f"{ROOT}/demo/manifests/{name}", encoding="utf-8") as file:
                    text = file.read()
                if name == "frontend-allow-refined.yaml":
                    text, replaced = re.subn(r"    - from:\n(        .*\n)+", "    - from:\n        - podSelector: {}\n", text, count=1)
                    self.assertEqual(replaced, 1)
                    text = text.replace("podSelector: {}\n", "podSelector: {}\n        - namespaceSelector: {}\n")
                    self.assertIn("namespaceSelector: {}\n      ports", text)
                with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                    file.write(text)
            said = self.demo("--manifests", folder, status=1)
        self.assertRegex(said, r"intruder +frontend:80 \(open\) +cut +still open .*\n +\d+ +DIFFERENT")
        self.assertRegex(said, r"intruder +frontend:80 +refused +allowed .*\n +\d+ +DIFFERENT: expected to be decided by: no ingress rule")
        self.assertRegex(said, r", [1-9]\d* different")

    def test_hold_says_how_to_go_on_until_ctrl_c(self):
        process = self.start("--hold")
        wait_until(lambda: process.poll() is not None or "Ctrl-C removes everything" in self.said(), 60, self.said)
        commands = [line.strip() for line in self.said().split("Ctrl-C removes")[0].splitlines() if re.match(r"  (ip|/|cp|ln) ?", line)]
        self.assertGreater(len(commands), 7, self.said())
        answers = {}
        for command in commands:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=patience(20), check=False)
            answers[command] = (done.returncode, done.stdout + done.stderr)
        def answer(*words):
            return next(a for c, a in answers.items() if all(w in c for w in words))
        self.assertIn(answer("intruder curl", ":8080")[0], RESET, answers)
        self.assertIn("frontend: welcome", answer("intruder curl", "/")[1])
        self.assertIn("the small door", answer("ingress-nginx curl")[1])
        self.assertIn("the small door", answer("frontend curl", "catalogue")[1])
        self.assertIn("postern_", answer("metrics")[1])
        self.assertIn("frontend-allow", answer("allow-list")[1])
        for command, (status, text) in answers.items():
            if "intruder" not in command:
                self.assertEqual(status, 0, f"{command}: {text}")
        # The last commands have taken frontend-allow away.
        call = next(c for c in commands if "intruder curl" in c and ":8080" not in c)
        wait_until(lambda: subprocess.run(call, shell=True, capture_output=True, check=False).returncode in RESET, 10, "the intruder to be refused")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(patience(20)), 0, self.said())

    def test_ctrl_c_in_the_middle_removes_everything(self):
        process = self.start()
        wait_until(lambda: "\n(i) " in self.said(), 60, self.said)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(patience(20)), 130, self.said())


if __name__ == "__main__":
    unittest.main()
