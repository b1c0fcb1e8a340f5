"""The chart: helm's lint, what it renders against what is written down, and values that its schema refuses.

    python3 chart_test.py PATH_OF_HELM          # --write: writes default.yaml and everything.yaml anew; read the difference before it is committed
"""

import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parents[1] / "charts/postern"
EVERYTHING = ["-f", CHART / "values-ha.yaml", "--set", "serviceMonitor.enabled=true,webhook.certificateSecret=webhook-tls,authority.givenSecret=mesh-ca",
              "--set", "webhook.caInjection=postern-system/webhook"]
RENDERED = {"default.yaml": [], "everything.yaml": EVERYTHING}
HELM = "helm"


def helm(*arguments):
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True, check=False)


def render(*options):
    return helm("template", "postern", CHART, "--namespace", "postern-system", "--kube-version", "1.34", *options)


class ChartTest(unittest.TestCase):
    def test_lint(self):
        for options in RENDERED.values():
            done = helm("lint", "--strict", CHART, *options)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_renders_what_is_written_down(self):
        for name, options in RENDERED.items():
            done = render(*options)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout, (HERE / name).read_text(encoding="utf-8"), f"{name}: --write writes it anew")

    def test_the_schema_refuses_what_it_does_not_know(self):
        for bad in ("replica=3", "control.replicas=0", "mesh.mtls=lax", "injection.privileged=no", "webhook.timeoutSeconds=60",
                    "webhook.excludedNamespaces={}", "trustDomain=a/b", "injection.drainPeriod=20", "authority.givenSecret=A B"):
            done = render("--set", bad)
            self.assertNotEqual(done.returncode, 0, bad)
            self.assertIn("schema", done.stderr, bad)

    def test_older_kubernetes_is_refused(self):
        done = helm("template", "postern", CHART, "--kube-version", "1.28")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(">=1.29", done.stderr)


if __name__ == "__main__":
    HELM = sys.argv.pop(1)
    if "--write" in sys.argv:
        for file, values in RENDERED.items():
            (HERE / file).write_text(render(*values).stdout, encoding="utf-8")
    else:
        unittest.main()
