"""The archive as a Workflow Run RO-Crate: its description, and whether a description is one.

https://w3id.org/ro/wfrun/workflow/0.5, which builds on Process Run Crate 0.5, Workflow RO-Crate 1.0 and RO-Crate 1.1.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from edgeloop.archive import ARCHIVE, CHECKSUMS, CONFIG, ENVIRONMENT, METADATA, PATCH, SOURCE, SPACE

RO_CRATE = "1.1"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
WORKFLOW = f"{SOURCE}/Snakefile"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
FORMATS = {
    "json": "application/json", "jsonl": "application/jsonl", "yaml": "application/yaml", "csv": "text/csv",
    "tsv": "text/tab-separated-values", "md": "text/markdown", "html": "text/html", "py": "text/x-python",
    "zip": "application/zip", "png": "image/png", "svg": "image/svg+xml",
}  # fmt: skip
BINARY = {"onnx", "pt", "npy"}
WHAT = {
    ARCHIVE: "what was run: commit, commands, environment, digests of code and weights",
    CONFIG: "the configuration with all defaults",
    SPACE: "the search space",
    ENVIRONMENT: "every installed package with its version",
    PATCH: "what the sources of the run differed in from the commit",
    CHECKSUMS: "sha256 of every other file",
    f"{SOURCE}/envs/requirements.txt": "the locked packages of the run-time environment",
    "results/summary.json": "the figures of the search",
    "results/report.html": "the report of the search",
}


def describe(about: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """ro-crate-metadata.json of a run; about: its archive.json. files: `sha256` and `contentSize` by path."""
    crate = ROCrate(version=RO_CRATE)
    crate.name = f"edgeloop run {about['name']}"
    crate.description = (
        "A hardware-aware architecture search with the real edge device in the loop: sources, configuration, every "
        "record, models and device fingerprints. `python -m edgeloop verify` checks it, `replay` decides it anew, "
        "`reproduce` trains a candidate anew, `unpack` makes a folder in which the search goes on."
    )
    crate.datePublished = _date(about["ended_at"])
    crate.license = crate.add(_entity(crate, LICENSE, "CreativeWork", name="Apache License 2.0"))
    crate.root_dataset["conformsTo"] = [
        crate.add(_entity(crate, name, "CreativeWork", name=title, version=version))
        for name, (title, version) in PROFILES.items()
    ]
    crate.metadata["conformsTo"] = [
        {"@id": f"https://w3id.org/ro/crate/{RO_CRATE}"},
        {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
    ]
    crate.metadata.extra_contexts.append(TERMS)
    known = {name: _file(crate, name, figures) for name, figures in files.items() if name != WORKFLOW}
    workflow = crate.add_workflow(
        WORKFLOW, WORKFLOW, lang="snakemake", lang_version=about["snakemake"],
        properties={**_properties(WORKFLOW, files[WORKFLOW]), "name": "edgeloop", "version": about["commit"]},
    )  # fmt: skip
    crate.mainEntity = workflow
    devices = [_device(crate, name, facts) for name, facts in about["devices"].items()]
    action = crate.add_action(
        workflow,
        identifier=f"#run-{about['lineage']}",
        object=[known[name] for name in (CONFIG, SPACE)],
        result=[entity for name, entity in known.items() if name.startswith("results/")],
        properties={
            "name": f"Search {about['name']}",
            "description": "; ".join(" ".join(command) for command in about["commands"]) or "commands not recorded",
            "startTime": _date(about["began_at"]),
            "endTime": _date(about["ended_at"]),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    crate.root_dataset["mentions"] = [action, *devices]
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _entity(crate: ROCrate, identity: str, kind: str, **properties: Any) -> ContextEntity:
    return ContextEntity(crate, identity, properties={"@type": kind, **properties})


def _device(crate: ROCrate, device: str, fingerprint: Mapping[str, Any]) -> ContextEntity:
    facts = [
        crate.add(_entity(crate, f"#device-{device}-{key}", "PropertyValue", name=key, value=json.dumps(value)))
        for key, value in fingerprint.items()
        if value is not None
    ]
    return crate.add(_entity(crate, f"#device-{device}", "IndividualProduct", name=device, additionalProperty=facts))


def _file(crate: ROCrate, name: str, figures: Mapping[str, Any]) -> Any:
    return crate.add_file(name, name, properties=_properties(name, figures))


def _properties(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    suffix = name.rpartition("/")[2].rpartition(".")[2]
    return {
        "name": WHAT.get(name, name),
        "contentSize": str(figures["contentSize"]),
        "sha256": figures["sha256"],
        "encodingFormat": FORMATS.get(suffix, "application/octet-stream" if suffix in BINARY else "text/plain"),
    }


def _date(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


# -------------------------------------------------------------------------------------------- checking


def problems(text: bytes, files: Mapping[str, str]) -> list[str]:
    """What is wrong with the ro-crate-metadata.json `text` of an archive that holds `files` (sha256 by path).

    The profiles' musts, and besides: each file is described, with its digest, and each reference leads to something.
    """
    try:
        graph = json.loads(text)["@graph"]
        entities = {entity["@id"]: entity for entity in graph}
    except (ValueError, KeyError, TypeError) as error:
        return [f"{METADATA} is no RO-Crate: {type(error).__name__} {error}"]
    if len(entities) < len(graph):
        return [f"{METADATA} describes something twice"]
    missing = [name for name in (METADATA, "./") if name not in entities]
    if missing:
        return [f"{METADATA} lacks the entity {name}" for name in missing]
    root = entities["./"]
    found = [*_of_root(entities, root), *_of_run(entities, root), *_of_files(entities, files)]
    return [f"{METADATA}: {said}" for said in found]


def _of_root(entities: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    descriptor = entities[METADATA]
    claims, said = _ids(root.get("conformsTo")), []
    if "Dataset" not in _kinds(root):
        said.append("the root is no Dataset")
    if _ids(descriptor.get("about")) != ["./"]:
        said.append("it is not about ./")
    if f"https://w3id.org/ro/crate/{RO_CRATE}" not in _ids(descriptor.get("conformsTo")):
        said.append(f"it does not conform to RO-Crate {RO_CRATE}")
    needed = ("name", "description", "datePublished", "license")
    said += [f"the root lacks {key}" for key in needed if not root.get(key)]
    said += [f"it does not claim the profile {name}" for name in PROFILES if name not in claims]
    unknown = [name for name in claims if "CreativeWork" not in _kinds(entities.get(name, {}))]
    said += [f"the profile {name} is no CreativeWork" for name in unknown]
    try:
        datetime.fromisoformat(root.get("datePublished", ""))
    except (ValueError, TypeError):
        said.append("datePublished is no date")
    return said


def _of_run(entities: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    main = _ids(root.get("mainEntity"))
    workflow = entities.get(main[0], {}) if len(main) == 1 else {}
    said = []
    if not {"File", "SoftwareSourceCode", "ComputationalWorkflow"} <= _kinds(workflow):
        said.append("its main entity is no workflow")
    if "ComputerLanguage" not in _kinds(entities.get(next(iter(_ids(workflow.get("programmingLanguage"))), ""), {})):
        said.append("the workflow has no programming language")
    runs = [entity for entity in entities.values() if "CreateAction" in _kinds(entity)]
    if not any(_ids(run.get("instrument")) == main and run["@id"] in _ids(root.get("mentions")) for run in runs):
        said.append("it mentions no run of the workflow")
    said += [f"the run {run['@id']} has no result" for run in runs if not run.get("result")]
    return said


def _of_files(entities: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    described = {name for name, entity in entities.items() if "File" in _kinds(entity)}
    parts = set(_ids(entities["./"].get("hasPart")))
    said = [f"{name} is described, and not there" for name in sorted(described - files.keys())]
    said += [f"{name} is there, and not described" for name in sorted(files.keys() - described - {METADATA, CHECKSUMS})]
    said += [f"{name} is no part of the root" for name in sorted(described - parts)]
    said += [
        f"{name} has another digest than described"
        for name in sorted(described & files.keys())
        if entities[name].get("sha256") != files[name]
    ]
    for name, entity in entities.items():
        for key, value in entity.items():
            lost = [part for part in _ids(value) if part not in entities and not part.startswith(("http:", "https:"))]
            said += [f"{key} of {name} leads to {part}, which is not described" for part in lost]
    return said


def _ids(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [part["@id"] for part in values if isinstance(part, dict) and "@id" in part]


def _kinds(entity: Mapping[str, Any]) -> set[str]:
    kinds = entity.get("@type", [])
    return set(kinds) if isinstance(kinds, list) else {kinds}
