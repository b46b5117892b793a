"""Takes the rules out of the PrometheusRule, for promtool, and asks: has each alert a section in the runbook and a test of when it
is raised and when not, and each section and test an alert?"""

import pathlib
import re
import shutil
import sys

import yaml

import objects

out = pathlib.Path(sys.argv[1])
[rule] = objects.read("deploy/monitoring/alerts.yaml")
(out / "rules.yaml").write_text(yaml.safe_dump(rule["spec"], width=200))
shutil.copy("deploy/monitoring/alerts_test.yaml", out)

alerts = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
sections = set(re.findall(r"^### (Oncelog\w+)$", pathlib.Path("docs/runbook.md").read_text(), re.MULTILINE))
[tests] = objects.read("deploy/monitoring/alerts_test.yaml")
quiet, raised = set(), set()
for test in tests["tests"]:
    quiet |= {case["alertname"] for case in test.get("alert_rule_test", []) if not case.get("exp_alerts")}
    for case in test.get("promql_expr_test", []):
        if case["exp_samples"]:
            raised |= set(re.findall(r'alertname="(\w+)"', case["expr"] + str(case["exp_samples"])))

faults = []
for kind, known in {"a section in docs/runbook.md": sections, "a test that is quiet": quiet, "a test that raises it": raised}.items():
    faults += [f"{alert} has not got {kind}" for alert in alerts.keys() - known]
    faults += [f"there is {kind} for {alert}, which is no alert" for alert in known - alerts.keys()]
for alert, body in alerts.items():
    if body["annotations"].get("runbook") != f"docs/runbook.md#{alert.lower()}":
        faults.append(f"{alert} does not name its section")
    if body["labels"].get("severity") not in ("critical", "warning"):
        faults.append(f"{alert} has no severity")
objects.finish(faults, len(alerts))
