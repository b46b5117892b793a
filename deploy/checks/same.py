"""Are the objects that Kustomize renders those that Helm renders, or kubectl? What only one of them can make is left out: the namespace,
and the pods of `helm test`."""

import difflib
import json
import sys

import objects


def comparable(path):
    kept = {}
    for thing in objects.read(path):
        metadata = thing["metadata"]
        if thing["kind"] == "Namespace" or "helm.sh/hook" in metadata.get("annotations", {}):
            continue
        metadata.pop("namespace", None)
        assert objects.name(thing) not in kept, f"{path} has {objects.name(thing)} twice"
        kept[objects.name(thing)] = json.dumps(thing, indent=2, sort_keys=True).splitlines()
    return kept


left, right = sys.argv[1:]
kustomize, other = comparable(left), comparable(right)
faults = [f"only Kustomize renders {name}" for name in kustomize.keys() - other.keys()]
faults += [f"only the other renders {name}" for name in other.keys() - kustomize.keys()]
for name in sorted(kustomize.keys() & other.keys()):
    difference = list(difflib.unified_diff(kustomize[name], other[name], "kustomize", "other", lineterm="", n=2))
    if difference:
        faults.append("\n    ".join([f"{name} differs:", *difference]))
objects.finish(faults, len(kustomize))
