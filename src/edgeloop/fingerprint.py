"""Fingerprints of code: a stage whose modules have changed is run again (Snakemake itself watches only its script)."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from edgeloop.records import ID_DIGITS


def code(*modules: str) -> str:
    """A digest of the source of `modules`; of a package, all its modules and templates count."""
    sources = hashlib.sha256()
    for module in modules:
        for file in _files(module):
            sources.update(file.name.encode() + b"\0" + file.read_bytes())
    return sources.hexdigest()[:ID_DIGITS]


def _files(module: str) -> list[Path]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module '{module}' to fingerprint")
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return [origin]
    return sorted(file for pattern in ("*.py", "*.html") for file in origin.parent.rglob(pattern))
