#!/usr/bin/env python3
"""Compare `posternctl verdicts` with the verdicts that the cases expect: run.py PATH-OF-POSTERNCTL [CASE...]"""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = ("egress", "ingress", "verdict")


def disagreements(posternctl, case):
    """The number of queries of a case, and a line for each that got another answer."""
    with open(case / "queries.jsonl") as f:
        wanted = [json.loads(line) for line in f if line.strip()]
    manifests = case / "manifests"
    if not manifests.is_dir():
        manifests = case / "manifests.yaml"
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as queries:
        for query in wanted:
            queries.write(json.dumps({k: v for k, v in query.items() if k not in EXPECTED}) + "\n")
        queries.flush()
        run = subprocess.run([posternctl, "verdicts", "--manifests", manifests, "--queries", queries.name], capture_output=True, text=True)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 or len(answers) != len(wanted):
        return len(wanted), ["%s: exit %d, %d answers to %d queries: %s" % (case.name, run.returncode, len(answers), len(wanted), run.stderr.strip())]
    return len(wanted), ["%s: %s: got %s" % (case.name, json.dumps(q), a) for q, a in zip(wanted, answers) if a != {k: q[k] for k in EXPECTED}]


def main():
    posternctl, only = sys.argv[1], sys.argv[2:]
    cases = sorted(p.parent for p in HERE.glob("*/queries.jsonl") if not only or p.parent.name in only)
    total, wrong = 0, []
    for case in cases:
        count, lines = disagreements(posternctl, case)
        total += count
        wrong += lines
    print("\n".join(wrong[:20] + ["%d of %d verdicts agree, in %d cases" % (total - len(wrong), total, len(cases))]))
    sys.exit(1 if wrong or not cases else 0)


if __name__ == "__main__":
    main()
