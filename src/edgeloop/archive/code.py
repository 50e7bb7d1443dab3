"""Which code an archive was made with, and how far another is the same."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = {"edgeloop": "src/edgeloop", "edge": "edge"}
"""The packages that decide and train, and where they lie in the sources."""
DECIDES = ("python", "numpy", "scipy", "scikit-learn", "torch", "optuna", "nevergrad", "moocore")
"""What besides our own code may change a decision or a training."""


def digests() -> dict[str, str]:
    """The sha256 of each module of the packages in use, by its path in the sources."""
    found = {}
    for package, place in PACKAGES.items():
        folder = Path(find_spec(package).origin).parent
        for file in sorted(folder.rglob("*.py")):
            name = f"{place}/{file.relative_to(folder).as_posix()}"
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def versions() -> dict[str, str]:
    """The versions of what may change a decision or a training."""
    installed = packages()
    return {"python": platform.python_version()} | {name: installed[name] for name in DECIDES[1:] if name in installed}


def packages() -> dict[str, str]:
    """Every installed package with its version, ordered by name."""
    found = {about.metadata["Name"].lower(): about.version for about in metadata.distributions()}
    return dict(sorted(found.items()))


def differences(about: Mapping[str, Any]) -> list[str]:
    """In what the code and the environment in use differ from those of an archive (its archive.json), in words."""
    then, now = about["code"], digests()
    lines = []
    if then != now:
        other = [name for name in sorted(then.keys() & now.keys()) if then[name] != now[name]]
        gone, new = sorted(then.keys() - now.keys()), sorted(now.keys() - then.keys())
        kinds = (("other content", other), ("not here", gone), ("only here", new))
        found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds if names)
        lines.append(f"the code in use is not that of the archive, commit {about['commit'][:12]} ({found})")
    installed = versions()
    lines += [
        f"{name} is {installed.get(name, 'not installed')} here and was {version} then"
        for name, version in about["versions"].items()
        if installed.get(name) != version
    ]
    return lines
