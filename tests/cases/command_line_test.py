#!/usr/bin/env python3
"""What posternctl answers to good and bad command lines: command_line_test.py PATH-OF-POSTERNCTL"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

CASE = pathlib.Path(__file__).resolve().parent / "seed-frontend-both-add-up"
MANIFESTS = str(CASE / "manifests.yaml")
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{port: 80, targetPort: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
status: {podIP: 10.0.0.2, phase: Running}
"""


def posternctl(*arguments):
    run = subprocess.run([POSTERNCTL, *arguments], capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


class CommandLine(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def refused(self, arguments, *words):
        status, out, err = posternctl(*arguments)
        self.assertEqual((status, out), (2, ""), err)
        for word in words:
            self.assertIn(word, err)

    def test_every_command_has_help(self):
        status, out, _ = posternctl("--help")
        self.assertEqual(status, 0)
        names = [line.split()[0] for line in out.split("Commands:\n")[1].splitlines() if line.startswith("  ")]
        self.assertLessEqual({"check", "explain", "verdicts"}, set(names))
        for name in names:
            status, out, _ = posternctl(name, "--help")
            self.assertEqual(status, 0, name)
            self.assertIn("Usage: posternctl " + name, out)

    def test_bad_command_lines(self):
        self.refused([], "Usage")
        self.refused(["chekc"], "no command 'chekc'")
        self.refused(["check", "--manifests", MANIFESTS, "--control", "control:15010"], "--manifests, --control", "exclude each other")
        self.refused(["check", "--kubeconfig", "/nowhere"], "/nowhere: cannot be opened", "expected a kubeconfig file")
        self.refused(["check", "--manifests"], "needs a value")
        self.refused(["check", "--manifests", MANIFESTS, "--manifests", MANIFESTS], "given twice")
        self.refused(["check", "--manifests", MANIFESTS, "--deep"], "no option '--deep'")
        self.refused(["check", "--manifests", MANIFESTS, "more"], "unexpected argument 'more'")

    def test_inject(self):
        roots = self.file("roots.pem", "-----BEGIN CERTIFICATE-----\n")
        app = self.file("app.yaml", "# web\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: nginx}]}\n"
                                    "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n")
        options = ("--trust-roots", roots, "--trust-domain", "cluster.local", "--image", "proxy:9")
        status, out, err = posternctl("inject", "-f", app, *options)
        self.assertEqual(status, 0, err)
        self.assertIn("image: proxy:9", out)
        self.assertIn("restartPolicy: Always", out)
        self.assertIn("---\napiVersion: v1\nkind: Service\n", out)
        self.assertIn("Pod web: injected", err)
        again = self.file("again.yaml", out)
        self.assertEqual(posternctl("inject", "-f", again, *options)[1], out)
        bad = self.file("denied.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {postern.dev/mtls: no}}\nspec: {containers: [{name: a}]}\n")
        status, out, err = posternctl("inject", "-f", bad, *options)
        self.assertEqual((status, out), (1, ""))
        self.assertIn("denied.yaml:1: Pod web", err)
        self.assertIn("postern.dev/mtls", err)
        self.refused(["inject", "--trust-roots", roots], "--file PATH is missing")
        self.refused(["inject", "-f", app, "--trust-roots", roots], "trustDomain")
        settings = self.file("settings.yaml", posternctl("inject", "--print-settings")[1].replace('trustDomain: ""', 'trustDomain: "x.org"'))
        self.assertIn("x.org", posternctl("inject", "-f", app, "--trust-roots", roots, "--settings", settings)[1])
        self.refused(["inject", "-f", app, "--trust-roots", roots, "--settings", self.file("bad.yaml", "imgae: x\n")], "bad.yaml:1", "image")

    def test_bad_files_are_named_with_line_and_field(self):
        self.refused(["check", "--manifests", "/nowhere"], "/nowhere", "no such file")
        self.refused(["check", "--manifests", self.folder.name], self.folder.name, "holds no *.yaml")
        bad = self.file("bad.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec:\n  podSelector: 7\n")
        self.refused(["check", "--manifests", bad], "bad.yaml:5", "spec.podSelector")
        broken = self.file("broken.yaml", "a: [1\n")
        self.refused(["check", "--manifests", broken], "broken.yaml:")

    def test_bad_queries_are_named_with_line_and_field(self):
        def refused(text, *words):
            self.refused(["verdicts", "--manifests", MANIFESTS, "--queries", self.file("q.jsonl", text)], *words)

        refused('\n{"from":', "q.jsonl:2", "not JSON")
        refused("[]", "q.jsonl:1", "expected an object")
        refused('{"to":"10.0.0.1","port":1}', "q.jsonl:1: from")
        refused('{"from":"10.0.0.1","to":"default/nobody","port":1}', "q.jsonl:1: to", "no pod default/nobody")
        refused('{"from":"10.0.0.1","to":"10.0.0","port":1}', "neither namespace/pod nor an IP address")
        refused('{"from":"10.0.0.1","to":"10.0.0.2","port":65536}', "q.jsonl:1: port", "1 to 65535")
        refused('{"from":"10.0.0.1","to":"10.0.0.2","port":1,"protocol":"ICMP"}', "q.jsonl:1: protocol", "TCP, UDP or SCTP")

    def test_verdicts_of_addresses_outside_the_cluster(self):
        queries = self.file("q.jsonl", '{"from":"192.0.2.1","to":"192.0.2.2","port":1}\n\n{"from":"192.0.2.1","to":"192.0.2.1","port":2}\n')
        status, out, err = posternctl("verdicts", "--manifests", MANIFESTS, "--queries", queries)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out, '{"egress":"allow","ingress":"allow","verdict":"allow"}\n' * 2)

    def test_explain_names_policies_and_rules(self):
        status, out, err = posternctl("explain", "--manifests", MANIFESTS, "--from", "default/frontend-1", "--to", "other/frontend-0",
                                      "--port", "80")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("TCP 80: deny\n", out)
        self.assertIn("egress: deny: the pod is isolated, and no rule matches", out)
        self.assertIn("isolated by default/frontend-allow-refined", out)
        self.assertIn("default/frontend-allow egress[0].to[0]: pods app=backend in namespace default: no; TCP 8080: no", out)

    def test_explain_resolves_services(self):
        manifests = self.file("service.yaml", SERVICE)
        ask = ["explain", "--manifests", manifests, "--from", "shop/web", "--to", "10.96.0.1", "--port"]
        status, out, err = posternctl(*ask, "80")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("10.96.0.1:80 is the Service shop/db; one of its 1 endpoints is 10.0.0.1:5432", out)
        self.assertIn("shop/web (10.0.0.2) -> shop/db (10.0.0.1) TCP 5432: allow", out)
        self.refused([*ask, "81"], "no usable endpoint")

    def test_explain_says_what_the_proxy_does_not_enforce(self):
        _, out, _ = posternctl("explain", "--manifests", MANIFESTS, "--from", "192.0.2.1", "--to", "default/frontend-1", "--port", "53",
                               "--protocol", "UDP")
        self.assertIn("does not enforce rules for UDP", out)

    def test_check_warns_of_a_policy_that_selects_nobody(self):
        text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {matchLabels: {app: nobody}}}\n"
        status, out, _ = posternctl("check", "--manifests", self.file("p.yaml", text))
        self.assertEqual(status, 0)
        self.assertIn("warning: the NetworkPolicy shop/x selects no pod of these manifests: app=nobody", out)


if __name__ == "__main__":
    POSTERNCTL = sys.argv.pop(1)
    unittest.main()
