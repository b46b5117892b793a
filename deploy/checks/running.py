"""Starts both services as the manifests start them, with their arguments, variables and files, does what `helm test` does, and asks:
do the services export every metric that an alert or the dashboard names, with the labels that are asked for?

What a container has and this machine has not is replaced: where to listen, where the broker is, the journal's directory, and the
directories at which secrets and configuration are mounted. Certificates are made by openssl, for the names that the objects of
cert-manager ask for."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import urllib.request

import authority
import objects

# Metrics of others, with the labels that they are asked by.
FOREIGN = {
    "up": set(),  # Prometheus
    "kubelet_volume_stats_available_bytes": {"persistentvolumeclaim"},  # kubelet
    "kubelet_volume_stats_capacity_bytes": {"persistentvolumeclaim"},
    "kube_pod_container_status_restarts_total": {"container"},  # kube-state-metrics
    "certmanager_certificate_expiration_timestamp_seconds": set(),  # cert-manager
}
# Labels with the values that they may have, for those that a healthy pair does not have.
CLOSED = {
    "rpc_response_status_code": {
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED",
    }
}  # fmt: skip
# Labels that a scrape adds.
SCRAPED = {"job", "instance", "namespace"}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
START_SECONDS = 60
OPERATORS = {
    "=": lambda told, asked: told == asked,
    "!=": lambda told, asked: told != asked,
    "=~": lambda told, asked: re.fullmatch(asked, told) is not None,
    "!~": lambda told, asked: re.fullmatch(asked, told) is None,
}
# A collector that is not there: it has to do no harm.
NO_COLLECTOR = "http://127.0.0.1:9"


class Program:
    """What runs in a container: its name, arguments and variables, with the directories where this machine has what is mounted."""

    def __init__(self, command, variables, mounts):
        self.name, *self.arguments = command
        self.variables, self.mounts = variables, mounts

    def here(self, text):
        for mounted, directory in self.mounts.items():
            text = text.replace(mounted, str(directory))
        return text


def expanded(text, variables):
    """Arguments and variables as Kubernetes reads them: `$$` is a dollar, `$(NAME)` a variable, if there is one of this name."""

    def one(found):
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def of_pods(path, directory):
    """The programs of the pods in a file, by name."""
    things = objects.read(path)
    files = authority.files(things, directory)
    found = {}
    for thing, spec in objects.pods(things):
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            mounts = {}
            for mount in container.get("volumeMounts", []):
                volume = volumes.get(mount["name"], {})
                source = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
                if source:
                    assert source in files, f"{objects.name(thing)} mounts {source}, which nobody makes"
                    mounts[mount["mountPath"]] = files[source]
            own = {"POD_NAME": thing["metadata"]["name"]}
            variables = {}
            for variable in container.get("env", []):
                text = variable.get("value", own.get(variable["name"]))
                variables[variable["name"]] = expanded(text, variables)
            path, *rest = [expanded(text, variables) for text in (*container["command"], *container["args"])]
            program = Program([os.path.basename(path), *rest], variables, mounts)
            found[program.name] = program
    return found


def of_compose(path):
    [model] = objects.read(path)
    services = (service for service in model["services"].values() if service["image"].startswith("oncelog-"))
    return {service["command"][0]: Program(service["command"], service.get("environment", {}), {}) for service in services}


@contextlib.contextmanager
def service(programs, program, **replaced):
    """A service that is ready: where it listens, and where its admin port is. `replaced` is what cannot be as in a container."""
    replaced |= {"listen": "127.0.0.1:0", "admin-listen": "127.0.0.1:0"}
    flags = [argument.lstrip("-").split("=")[0] for argument in program.arguments]
    assert not replaced.keys() - set(flags), f"{program.name} is not told all of {replaced.keys()}: {program.arguments}"
    own = [program.here(argument) for flag, argument in zip(flags, program.arguments) if flag not in replaced]
    command = [programs / program.name, *own, *(f"--{flag}={value}" for flag, value in replaced.items())]
    variables = dict(program.variables)
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in variables:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = NO_COLLECTOR
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | variables)
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
            raise SystemExit(f"{program.name} did not start:\n{''.join(log)}")
        timer.cancel()
        # Nobody reads further; a full pipe would stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield entry["listen"], entry["admin"]
        process.terminate()
        assert process.wait(START_SECONDS) == 0, f"{program.name} ended with {process.returncode}"
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def get(admin, path):
    with urllib.request.urlopen(f"http://{admin}{path}", timeout=10) as answer:
        return answer.read().decode()


def scheme_of(program):
    """How callers reach a service."""
    return "https" if any(argument.startswith("--tls-cert=") for argument in program.arguments) else "http"


def url(program, listen):
    """Where a service is that was told to listen there; by a name, for its certificate holds names."""
    return f"{scheme_of(program)}://localhost:{listen.rpartition(':')[2]}"


def listed(end, variables, *more):
    """What a caller is told who asks what can be called. It shows no certificate of its own, unless with `more`."""
    call = ["grpcurl", "-cacert", variables["ONCELOG_TLS_CA"], *more, end.rpartition("/")[2], "list"]
    answer = subprocess.run(call, capture_output=True, text=True, timeout=60)
    return answer.stdout + answer.stderr


def shaken_hands(end, variables):
    """What becomes of a connection of somebody without a certificate; grpcurl only says that there is none."""
    context = ssl.create_default_context(cafile=variables["ONCELOG_TLS_CA"])
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("localhost", int(end.rpartition(":")[2])), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                return f"it is let in, and told {connection.recv(100)}"
    except ssl.SSLError as error:
        return str(error)


def strangers_are_kept_out(end, program, variables):
    """Asks as somebody who is known, as nobody, and with tokens where they are taken. What is said tells apart who was refused from
    who never got there."""
    service = "oncelog.v1."
    with_certificate = ["-cert", variables["ONCELOG_TLS_CERT"], "-key", variables["ONCELOG_TLS_KEY"]]
    cases = {"with a certificate": (with_certificate, service)}
    if any(argument.startswith("--tokens-file=") for argument in program.arguments):
        bearer = "authorization: Bearer "
        cases["with a token"] = (["-H", bearer + authority.TOKEN], service)
        cases["with a wrong token"] = (["-H", bearer + authority.TOKEN[::-1]], "Unauthenticated")
        cases["with a wrong token and a certificate"] = ([*with_certificate, "-H", bearer + authority.TOKEN[::-1]], "Unauthenticated")
        cases["without either"] = ([], "Unauthenticated")
    else:
        told = shaken_hands(end, variables)
        assert "certificate required" in told, f"{program.name} is called without a certificate: {told}"
    for how, (more, expected) in cases.items():
        told = listed(end, variables, *more)
        assert expected in told, f"{program.name} is asked {how}; expected {expected}, was told: {told}"


def scrape(programs, found, test):
    """Runs both services, and what `helm test` runs; the metrics of both, as text."""
    broker, producer = found["broker-svc"], found["producer-svc"]
    [told] = [argument.partition("=")[2] for argument in producer.arguments if argument.startswith("--broker=")]
    assert told.startswith(f"{scheme_of(broker)}:"), f"the broker is reached by {scheme_of(broker)}, producers are told {told}"
    with (
        tempfile.TemporaryDirectory() as directory,
        service(programs, broker, **{"data-dir": f"{directory}/journal"}) as (broker_listen, broker_admin),
        service(programs, producer, broker=url(broker, broker_listen)) as (producer_listen, producer_admin),
    ):
        for admin in (broker_admin, producer_admin):
            assert get(admin, "/healthz") and get(admin, "/readyz")
        ends = {"ONCELOG_BROKER": url(broker, broker_listen), "ONCELOG_PRODUCER": url(producer, producer_listen)}
        for name, end in ends.items():
            assert test.variables[name].split(":")[0] == end.split(":")[0], f"helm test is told {test.variables[name]}"
        variables = {name: test.here(value) for name, value in test.variables.items()} | ends
        environment = os.environ | variables | {"PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["sh", *test.arguments], env=environment, check=True, timeout=120)
        if "ONCELOG_TLS_CA" in variables:
            strangers_are_kept_out(ends["ONCELOG_BROKER"], broker, variables)
            strangers_are_kept_out(ends["ONCELOG_PRODUCER"], producer, variables)
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


def is_asked_for(labels, asked):
    """Has a series all labels that are asked for, with these values? Those of CLOSED count for themselves."""
    open_ones = {label: matcher for label, matcher in asked.items() if label not in CLOSED}
    return asked.keys() <= labels.keys() and all(OPERATORS[how](labels[label], value) for label, (how, value) in open_ones.items())


def faults_of(expression, series):
    selectors = SELECTOR.findall(expression)
    named = set(re.findall(r"\b(?:oncelog_(?:broker|producer|security)|rpc_(?:server|client)_call)_\w+", expression))
    if bare := named - {name for name, _ in selectors}:
        yield f"{', '.join(bare)} is asked for without a job"
    known = {label for labels in series.values() for each in labels for label in each} | SCRAPED
    if unknown := {label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(", ")} - known:
        yield f"no service exports a label {', '.join(unknown)}"
    for name, matchers in selectors:
        asked = {label: (operator, value) for label, operator, value in MATCHER.findall(matchers) if label not in SCRAPED}
        if name in FOREIGN:
            if more := asked.keys() - FOREIGN[name]:
                yield f"{name} has no {', '.join(more)}"
            continue
        if name not in series:
            yield f"no service exports {name}"
            continue
        for label in asked.keys() & CLOSED.keys():
            operator, value = asked[label]
            if not any(OPERATORS[operator](told, value) for told in CLOSED[label]):
                yield f"{label} is never {operator} {value}"
        if not any(is_asked_for(labels, asked) for labels in series[name]):
            yield f"no service exports {name} with {asked}"


arguments = argparse.ArgumentParser()
arguments.add_argument("--programs", type=pathlib.Path, required=True)
arguments.add_argument("--rendered", type=pathlib.Path, required=True)
arguments.add_argument("--forms", nargs="+", required=True)
arguments.add_argument("--compose", required=True)
arguments = arguments.parse_args()
programs = arguments.programs.resolve()
with tempfile.TemporaryDirectory() as directory:
    for form in arguments.forms:
        print(f"-- {form}", flush=True)
        files = pathlib.Path(directory, form)
        found = of_pods(arguments.rendered / f"{form}.helm.yaml", files)
        test = found.pop("sh")
        if (kustomized := arguments.rendered / f"{form}.kustomize.yaml").exists():
            found = of_pods(kustomized, files)
        series = exported(scrape(programs, found, test))
    print("-- compose", flush=True)
    test = of_pods(arguments.rendered / "base.helm.yaml", pathlib.Path(directory, "base"))["sh"]
    scrape(programs, of_compose(arguments.compose), test)
faults, checked = [], 0
for where, expression in expressions():
    checked += 1
    faults += [f"{where}: {fault}" for fault in faults_of(expression, series)]
objects.finish(faults, checked)
