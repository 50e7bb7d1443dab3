"""Records: the JSON files that the stages of the workflow exchange, and the identities that name them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
ID_DIGITS = 12

Genotype = dict[str, Any]
"""``{"architecture": {"family": ..., gene: value, ...}, "precision": "fp32", "training": {gene: value, ...}}``"""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text. NaN is an error."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """The first 12 hex digits of the sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_DIGITS]


def candidate_id(genotype: Mapping[str, Any]) -> str:
    """The identity of a candidate: every gene counts."""
    return digest({key: genotype[key] for key in ("architecture", "precision", "training")})


def architecture_id(genotype: Mapping[str, Any]) -> str:
    """The identity of all that latency depends on: the architecture and its precision."""
    return digest({key: genotype[key] for key in ("architecture", "precision")})


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once the block has ended without an exception."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, under a temporary name first. NaN is an error."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in the file `path`; an error that names the file when it is none."""
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}). Remove it and run again: it will be made anew."
        ) from error


def ok(**fields: Any) -> dict[str, Any]:
    """A record of something that went well."""
    return {"schema_version": SCHEMA_VERSION, "status": "ok", **fields}


def failed(reason: str, **fields: Any) -> dict[str, Any]:
    """A record of something that failed, with its reason."""
    return {"schema_version": SCHEMA_VERSION, "status": "failed", "reason": reason, **fields}
