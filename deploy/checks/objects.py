"""Kubernetes objects in files, and how faults in them are told."""

import sys

import yaml


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a lone `=` is text."""


Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


def read(path):
    """The objects of a file with any number of documents."""
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.load_all(file, Loader) if document]


def name(thing):
    """How an object is called in a message."""
    metadata = thing["metadata"]
    return f"{thing['kind']} {metadata.get('name') or metadata['generateName']}"


def pods(objects):
    """Each object that is a pod or makes pods, with the specification of these pods."""
    for thing in objects:
        if thing["kind"] == "Pod":
            yield thing, thing["spec"]
        elif "template" in thing.get("spec", {}):
            yield thing, thing["spec"]["template"]["spec"]


def finish(faults, checked):
    """Tells faults and ends the process; a check that looked at nothing is a fault, too."""
    if not checked:
        faults = [*faults, "there was nothing to check"]
    for fault in faults:
        print(f"  - {fault}", file=sys.stderr)
    print(f"{checked} checked, {len(faults)} faults")
    sys.exit(1 if faults else 0)
