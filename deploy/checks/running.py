"""Starts both services with the arguments that the manifests give them, does what `helm test` does, and asks: do the services
export every metric that an alert or the dashboard names, with the labels that are asked for?"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import urllib.request

import objects

# Metrics of others.
FOREIGN = {
    "up",  # Prometheus
    "kubelet_volume_stats_available_bytes",  # kubelet
    "kubelet_volume_stats_capacity_bytes",
    "kube_pod_container_status_restarts_total",  # kube-state-metrics
}
# Labels that a scrape adds.
SCRAPED = {"job", "instance", "namespace"}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
START_SECONDS = 60


def commands_of_pods(path):
    """The command line of each service, by the name of its program."""
    found = {}
    for _, spec in objects.pods(objects.read(path)):
        for container in spec["containers"]:
            program, *rest = [*container["command"], *container["args"]]
            found[os.path.basename(program)] = rest
    return found


def commands_of_compose(path):
    [model] = objects.read(path)
    services = (service for service in model["services"].values() if service["image"].startswith("oncelog-"))
    return {service["command"][0]: service["command"][1:] for service in services}


@contextlib.contextmanager
def service(programs, program, arguments, **replaced):
    """A service that is ready: where it listens, and where its admin port is. `replaced` is what cannot be as in a container."""
    replaced |= {"listen": "127.0.0.1:0", "admin-listen": "127.0.0.1:0"}
    own = [argument for argument in arguments if argument.lstrip("-").split("=")[0] not in replaced]
    missing = replaced.keys() - {argument.lstrip("-").split("=")[0] for argument in arguments}
    assert not missing, f"{program} is not told {missing}: {arguments}"
    command = [programs / program, *own, *(f"--{flag}={value}" for flag, value in replaced.items())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "ready":
                break
        else:
            raise SystemExit(f"{program} did not start:\n{''.join(log)}")
        timer.cancel()
        # Nobody reads further; a full pipe would stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield entry["listen"], entry["admin"]
        process.terminate()
        assert process.wait(START_SECONDS) == 0, f"{program} ended with {process.returncode}"
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def get(admin, path):
    with urllib.request.urlopen(f"http://{admin}{path}", timeout=10) as answer:
        return answer.read().decode()


def scrape(programs, commands):
    """Runs both services, and what `helm test` runs; the metrics of both, as text."""
    with (
        tempfile.TemporaryDirectory() as directory,
        service(programs, "broker-svc", commands["broker-svc"], **{"data-dir": f"{directory}/journal"}) as (broker, broker_admin),
        service(programs, "producer-svc", commands["producer-svc"], broker=f"http://{broker}") as (producer, producer_admin),
    ):
        for admin in (broker_admin, producer_admin):
            assert get(admin, "/healthz") and get(admin, "/readyz")
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ONCELOG_BROKER": f"http://{broker}",
            "ONCELOG_PRODUCER": f"http://{producer}",
        }
        subprocess.run(["sh", "deploy/helm/oncelog/exactly-once.sh"], env=environment, check=True, timeout=120)
        return get(broker_admin, "/metrics") + get(producer_admin, "/metrics")


def exported(text):
    """The label sets of each series, by its name."""
    series = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels = re.match(r"([\w:]+)(?:\{(.*)\})? ", line).groups()
            series.setdefault(name, []).append({label: value for label, _, value in MATCHER.findall(labels or "")})
    return series


def expressions():
    [rule] = objects.read("deploy/monitoring/alerts.yaml")
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            yield f"alert {alert['alert']}", alert["expr"]
    dashboard = json.loads(pathlib.Path("deploy/monitoring/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]


def faults_of(expression, series):
    selectors = SELECTOR.findall(expression)
    if bare := set(re.findall(r"\boncelog_\w+", expression)) - {name for name, _ in selectors}:
        yield f"{', '.join(bare)} is asked for without a job"
    for name, matchers in selectors:
        if name in FOREIGN:
            continue
        if name not in series:
            yield f"no service exports {name}"
            continue
        asked = {label: value for label, operator, value in MATCHER.findall(matchers) if label not in SCRAPED and operator == "="}
        if not any(asked.items() <= labels.items() for labels in series[name]):
            yield f"no service exports {name} with {asked}"


arguments = argparse.ArgumentParser()
arguments.add_argument("--programs", type=pathlib.Path, required=True)
arguments.add_argument("--kustomize", required=True)
arguments.add_argument("--compose", required=True)
arguments = arguments.parse_args()
programs = arguments.programs.resolve()
series = {}
for commands in (commands_of_pods(arguments.kustomize), commands_of_compose(arguments.compose)):
    series = exported(scrape(programs, commands))
faults, checked = [], 0
for where, expression in expressions():
    checked += 1
    faults += [f"{where}: {fault}" for fault in faults_of(expression, series)]
objects.finish(faults, checked)
