"""Does each object follow the schema of its kind, in several versions of Kubernetes? Fields that are not known are faults: a
cluster would drop them silently. Schemas of other kinds come from the definitions that are in the Go modules of their operators."""

import argparse
import pathlib

import jsonschema
import kubernetes_validate

import objects


def strict(schema):
    """The schema, without room for fields that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    stricter = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        stricter["additionalProperties"] = False
    return stricter


def definitions(directories):
    """Schemas by version and kind."""
    found = {}
    for path in (path for directory in directories for path in directory.glob("*.yaml")):
        for definition in objects.read(path):
            if definition["kind"] != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                # What every object has, and a definition does not repeat.
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def faults_of(thing, version, others):
    other = others.get((thing["apiVersion"], thing["kind"]))
    if other is not None:
        validator = jsonschema.Draft202012Validator(other)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(thing)]
    try:
        used = kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"there is no {thing['apiVersion']} {thing['kind']}"]
    # A version that the package does not have is taken for an older one.
    return [] if used == version else [f"there are no schemas of {version}; {used} was used"]


arguments = argparse.ArgumentParser()
arguments.add_argument("--definitions", nargs="+", type=pathlib.Path, required=True)
arguments.add_argument("--versions", nargs="+", required=True)
arguments.add_argument("files", nargs="+")
arguments = arguments.parse_args()
others = definitions(arguments.definitions)
faults, checked = [], 0
for path in arguments.files:
    for thing in objects.read(path):
        for version in arguments.versions:
            checked += 1
            where = f"{pathlib.Path(path).name}, {objects.name(thing)}, Kubernetes {version}"
            faults += [f"{where}: {fault}" for fault in faults_of(thing, version, others)]
objects.finish(faults, checked)
