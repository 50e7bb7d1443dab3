"""YAML files whose values know their line, so that an error can name it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast: every job reads the schema

Where = tuple[str | int, ...]
"""The path of keys and list positions that leads to a value."""


@dataclass(frozen=True)
class YamlFile:
    """The value in a YAML file, and the line of each part of it."""

    path: Path
    value: Any
    lines: dict[Where, int]

    def at(self, where: Where) -> str:
        """``file, line N`` of the innermost enclosing part that the file holds."""
        for length in range(len(where), -1, -1):
            if (line := self.lines.get(tuple(where[:length]))) is not None:
                return f"{self.path}, line {line}"
        return str(self.path)


def load(path: str | Path) -> YamlFile:
    """Read a YAML file.

    Raises ValueError, naming file and line, when it is missing, is no YAML or has a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        node = yaml.compose(text, Loader=LOADER)
        value = yaml.load(text, Loader=LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    return YamlFile(path, value, dict(_lines(node, (), path)) if node else {})


def _lines(node: yaml.Node, where: Where, path: Path) -> Iterator[tuple[Where, int]]:
    yield where, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _lines(item, (*where, position), path)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, item in node.value:
            name = SafeConstructor().construct_object(key, deep=True)
            if name in seen:  # YAML itself silently keeps the last one
                raise ValueError(f"{path}, line {key.start_mark.line + 1}: the key '{name}' stands twice.")
            seen.add(name)
            yield from _lines(item, (*where, name), path)
            yield (*where, name), key.start_mark.line + 1
