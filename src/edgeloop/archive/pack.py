"""Archiving a finished run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from edgeloop import journal
from edgeloop.archive import (
    ARCHIVE,
    CHECKSUMS,
    CONFIG,
    ENVIRONMENT,
    METADATA,
    PATCH,
    SOURCE,
    SPACE,
    ArchiveError,
    code,
    contents,
    crate,
    name_of,
    sources,
)
from edgeloop.archive.container import Entry, write
from edgeloop.archive.privacy import Private, portable_config, refuse_keys
from edgeloop.records import SCHEMA_VERSION, read_json


def pack(target: Path, *, run: Path, root: Path, config: Mapping[str, Any], space: Path) -> dict[str, Any]:
    """Archive the run in the folder `run` as `target`; the files' number and bytes, and the archive's sha256.

    root: the checkout of the sources. config: the completed configuration. space: the file of the search space. The
    same run gives the same archive, byte for byte. Raises ArchiveError, see `sources` and `privacy`.
    """
    private = Private(config, run, root)
    entries = {entry.name: entry for entry in _files(run, root, config, space, private)}
    about = _about(run, root, config, private)
    entries |= {entry.name: entry for entry in _generated(about, root)}
    figures = {}
    for name in sorted(entries):
        content = entries[name].read()
        refuse_keys(name, content)
        if not name.startswith(f"{SOURCE}/") and name != PATCH:
            private.check(name, content)
        figures[name] = {"contentSize": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    metadata = crate.describe(about, figures)
    entries[METADATA] = Entry(METADATA, lambda: metadata)
    sums = {name: entry["sha256"] for name, entry in figures.items()}
    sums[METADATA] = hashlib.sha256(metadata).hexdigest()
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    entries[CHECKSUMS] = Entry(CHECKSUMS, lambda: listed)
    digest = write(target, entries.values())
    return {"files": len(entries), "bytes": target.stat().st_size, "sha256": digest}


def _files(run: Path, root: Path, config: Mapping[str, Any], space: Path, private: Private) -> Iterator[Entry]:
    """What lies in files: of the run without private places, of the commit as it is."""
    for name in contents.files(run, config["archive"]["models"]):
        yield Entry(name, partial(_read, run / name, private))
    for name, content, executable in sources.files(root, sources.commit(root)):
        yield Entry(f"{SOURCE}/{name}", lambda content=content: content, executable)
    archived = yaml.safe_dump(portable_config(config), sort_keys=False).encode()
    yield Entry(CONFIG, lambda: archived)
    yield Entry(SPACE, partial(_read, space, private))


def _read(file: Path, private: Private) -> bytes:
    if file.suffix not in contents.TEXT:
        return file.read_bytes()
    if file.name == journal.JOURNAL.name:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        told = [{**line, "command": private.command(line["command"])} for line in lines]
        return "".join(json.dumps(line) + "\n" for line in told).encode()
    return private.text(file.read_text()).encode()


def _generated(about: Mapping[str, Any], root: Path) -> Iterator[Entry]:
    """What is written for the archive."""
    record = json.dumps(about, indent=1).encode() + b"\n"
    yield Entry(ARCHIVE, lambda: record)
    packages = "".join(f"{name}=={version}\n" for name, version in code.packages().items()).encode()
    yield Entry(ENVIRONMENT, lambda: packages)
    if difference := sources.patch(root, about["changed"]):
        yield Entry(PATCH, lambda: difference)


def _about(run: Path, root: Path, config: Mapping[str, Any], private: Private) -> dict[str, Any]:
    """archive.json."""
    if not (states := contents.states(run)):
        raise ArchiveError(f"{run} holds no results/generations/*/state.json: there is no search to archive")
    last = read_json(states[-1])
    first = read_json(states[0].with_name("proposals.json"))
    search = config["search"]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name_of(config),
        "commit": sources.commit(root),
        "changed": sources.changed(root),
        "commands": [private.command(entry["command"]) for entry in journal.read(run)],
        "search": {key: search[key] for key in ("strategy", "seed", "max_generations")},
        "lineage": last["lineage"],
        "began_at": first["decided_at"],
        "ended_at": _end(run),
        "devices": {
            file.stem: read_json(file)["fingerprint"] for file in sorted((run / "results/devices").glob("*.json"))
        },
        "snakemake": code.packages()["snakemake"],
        "versions": code.versions(),
        "code": code.digests(),
        "weights": {
            name: contents.sha256(run / f"results/candidates/{name}/weights.pt") for name in contents.candidates(run)
        },
    }


def _end(run: Path) -> float:
    """When the last job of the search ended: a time that no archiving changes."""
    files = [*(run / "results/candidates").glob("*/*.json"), *(run / "results/generations").glob("*/screening.*.json")]
    files += (run / "results").glob("comparison.*.json")
    return max(work[1] for work in (read_json(file).get("work") for file in files) if work)
