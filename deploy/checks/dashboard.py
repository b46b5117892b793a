"""Lints the dashboard, by the rules of Grafana's dashboard linter: variables for data source, namespace, job and
instance, which every query uses; a title, a description and a unit for every panel; counters only as rates. Writes the queries as
recording rules, so that promtool parses them."""

import json
import pathlib
import re
import sys

import yaml

import objects

UNITS = {"bytes", "ops", "percentunit", "reqps", "s", "short"}
# What stands for all of a variable. A Prometheus without Kubernetes knows no namespaces, and `.*` finds series without one.
VARIABLES = {"namespace": ".*", "job": ".+", "instance": ".+"}

dashboard = json.loads(pathlib.Path("deploy/monitoring/dashboard.json").read_text())
variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]

faults, queries = [], []
if dashboard.get("editable") is not False:
    faults.append("it is editable: changes belong into this file")
if variables.get("datasource", {}).get("type") != "datasource":
    faults.append("there is no variable for the data source")
for name, everything in VARIABLES.items():
    variable = variables.get(name, {})
    if not (variable.get("multi") and variable.get("allValue") == everything and variable.get("refresh") == 2):
        faults.append(f"variable {name} is missing, or is not for many, for all, and refreshed with the time range")
if len({panel["id"] for panel in dashboard["panels"]}) != len(dashboard["panels"]):
    faults.append("two panels have one id")
for panel in panels:
    where = f"panel {panel.get('title')!r}"
    if not panel.get("title") or not panel.get("description"):
        faults.append(f"{where} has no title or no description")
    if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        faults.append(f"{where} has no unit, or not one of {', '.join(sorted(UNITS))}")
    if not panel.get("targets"):
        faults.append(f"{where} asks for nothing")
    for target in panel.get("targets", []):
        query = target["expr"]
        if any(part["datasource"]["uid"] != "$datasource" for part in (panel, target)):
            faults.append(f"{where} has a data source of its own")
        for name, matchers, rest in re.findall(r"(\w+)\{([^}]*)\}(\[[^]]*\])?", query):
            # The kubelet knows the namespace of a volume, and neither job nor instance of ours.
            wanted = ["namespace"] if name.startswith("kubelet_") else VARIABLES
            if missing := [variable for variable in wanted if f'{variable}=~"${variable}"' not in matchers]:
                faults.append(f"{where} asks for {name} without {', '.join(missing)}")
            if name.endswith(("_total", "_bucket", "_count", "_sum")) and not re.search(rf"(rate|increase)\({name}\{{", query):
                faults.append(f"{where} shows the counter {name} as it is")
            if rest not in ("", "[$__rate_interval]"):
                faults.append(f"{where} looks at {rest}, not at $__rate_interval")
        queries.append({"record": f"query:{len(queries)}", "expr": query.replace("$__rate_interval", "5m")})
rules = {"groups": [{"name": "dashboard", "rules": queries}]}
(pathlib.Path(sys.argv[1]) / "dashboard.yaml").write_text(yaml.safe_dump(rules, width=200))
objects.finish(faults, len(queries))
