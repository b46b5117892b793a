"""Do all pods pass the *restricted* Pod Security Standard, and what oncelog asks of them beside it? The rules are the standard's,
in its order; what is not set is what the standard takes as not set."""

import pathlib
import sys

import objects

ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def selinux_and_apparmor(context):
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions are its own"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield "appArmorProfile is switched off"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"


def faults_of_pod(spec):
    context = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        if kinds := volume.keys() - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(kinds)}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    yield from selinux_and_apparmor(context)


def handlers(container):
    for field in PROBES:
        yield container.get(field, {})
    yield from container.get("lifecycle", {}).values()


def faults_of_container(container, pod):
    context = container.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    if context.get("privileged"):
        yield "privileged"
    if more := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds capabilities {', '.join(more)}"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    for handler in handlers(container):
        if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe or hook names a host"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    yield from selinux_and_apparmor(context)
    # From here on: restricted.
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if not context.get("runAsNonRoot", pod.get("runAsNonRoot", False)):
        yield "runAsNonRoot is not true"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    seccomp = context.get("seccompProfile", pod.get("seccompProfile", {}))
    if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile is not RuntimeDefault"
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"


def wishes_of_container(container):
    """Beyond the standard."""
    if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
        yield "readOnlyRootFilesystem is not true"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
        yield "does not request cpu and memory, or has no limit of memory"


faults, checked = [], 0
for path in sys.argv[1:]:
    for thing, spec in objects.pods(objects.read(path)):
        where = f"{pathlib.Path(path).name}, {objects.name(thing)}"
        checked += 1
        faults += [f"{where}: {fault}" for fault in faults_of_pod(spec)]
        if spec.get("automountServiceAccountToken") is not False:
            faults.append(f"{where}: automountServiceAccountToken is not false")
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for container in spec.get(kind, []):
                pod = spec.get("securityContext", {})
                found = [*faults_of_container(container, pod), *wishes_of_container(container)]
                faults += [f"{where}, {container['name']}: {fault}" for fault in found]
objects.finish(faults, checked)
