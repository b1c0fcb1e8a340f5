"""The chart: helm's lint, what it renders against what is written down, and values that its schema refuses.

    python3 chart_test.py PATH_OF_HELM          # --write: writes default.yaml and everything.yaml anew; read the difference before it is committed
"""

import json
import pathlib
import re
import subprocess
import sys
import unittest

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts/postern"
EVERYTHING = ["-f", CHART / "values-ha.yaml", "--set", "serviceMonitor.enabled=true,serviceMonitor.labels.release=prometheus,dashboard.enabled=true,webhook.certificateSecret=webhook-tls,authority.givenSecret=mesh-ca",
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

    def test_rendering_again_changes_nothing(self):
        for options in RENDERED.values():
            self.assertEqual(render(*options).stdout, render(*options, "--is-upgrade").stdout)

    def test_the_dashboard_asks_for_metrics_that_there_are(self):
        documented = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("metrics.md", "control.md"))
        known = set(re.findall(r"^\| `(postern_\w+)", documented, re.MULTILINE))
        text = (CHART / "dashboards/postern.json").read_text(encoding="utf-8")
        self.assertEqual(json.loads(text)["title"], "Postern")
        asked = {name.removesuffix("_bucket") for name in re.findall(r"postern_\w+", text)}
        self.assertEqual(asked - known, set())
        rendered = next(item for item in yaml.safe_load_all(render(*EVERYTHING).stdout) if item and item["metadata"]["name"] == "postern-dashboard")
        self.assertEqual(json.loads(rendered["data"]["postern.json"]), json.loads(text))

    def test_the_schema_refuses_what_it_does_not_know(self):
        for bad in ("replica=3", "control.replicas=0", "mesh.mtls=lax", "injection.privileged=no", "webhook.timeoutSeconds=60",
                    "webhook.excludedNamespaces={}", "trustDomain=a/b", "serviceMonitor.labels=x", "test.image=", "injection.drainPeriod=20", "authority.givenSecret=A B"):
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
