"""Is everything there that the runbook tells somebody to use? Each flag that is not of a program of others, and each object."""

import pathlib
import re
import subprocess
import sys

import objects

OTHERS = ("kubectl", "helm", "cmctl", "kustomize", "amtool", "cd ")
COMMANDS = (["broker-svc"], ["producer-svc"], ["oncelog", "send"], ["oncelog", "verify"], ["oncelog", "fetch"])

programs, *files = map(pathlib.Path, sys.argv[1:])
page = pathlib.Path("docs/runbook.md").read_text()
code = re.findall(r"^ *```.*?^ *```|`[^`\n]+`", page, re.MULTILINE | re.DOTALL)
flags, names = set(), set()
for part in code:
    for line in part.strip("`").splitlines():
        names |= set(re.findall(r"(?:journal-)?oncelog-[a-z0-9-]+", line))
        # What is run in a pod is ours.
        ours = line.partition(" -- ")[2] if line.strip().startswith(OTHERS) else line
        flags |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))

known_flags = set()
for program, *rest in COMMANDS:
    told = subprocess.run([programs / program, *rest, "--help"], capture_output=True, check=True, text=True).stdout
    known_flags |= set(re.findall(r"--[a-z][a-z-]+", told))
# Images, a pod and a claim of the StatefulSet, the secret that somebody brings, a label, and a snapshot as it may be called.
known_names = {"oncelog-services", "oncelog-broker-0", "journal-oncelog-broker-0", "oncelog-tokens", "oncelog-clients"}
known_names.add("oncelog-journal-abcde")
for thing in (thing for path in files for thing in objects.read(path)):
    known_names |= {thing["metadata"].get("name"), thing.get("spec", {}).get("secretName")}

faults = [f"no program of ours has {flag}" for flag in sorted(flags - known_flags)]
faults += [f"there is no {name}" for name in sorted(names - known_names)]
objects.finish(faults, len(flags | names))
