"""Genes as dataclass fields: declared once, checked everywhere in the same words."""

from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin

from torch import nn

from edgeloop.models.preprocess import CLIP_FRAMES, RESIZE_LIMIT


def gene(
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | None = None,
    length: int | None = None,
) -> Any:
    """A field that is a gene. The limits hold for each number of a list; `length` is that of a list."""
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices, "length": length}
    return field(default=default, metadata={key: value for key, value in limits.items() if value is not None})


def frames_gene() -> Any:
    """How many frames the network sees: the centre window of the clip, cut by the caller."""
    return gene(CLIP_FRAMES, minimum=1, maximum=CLIP_FRAMES)


def pixels_gene() -> Any:
    """Side of the square that the network works on: a centre crop below 41, a bilinear resize above."""
    return gene(41, minimum=8, maximum=RESIZE_LIMIT)


class Checked:
    """Base of frozen dataclasses that check their fields against types and limits as they are made.

    Lists become tuples and numbers the type of their field. A value that does not fit raises ValueError
    that names the gene, the value and what was expected; `validate` adds what concerns several genes.
    """

    __dataclass_fields__: ClassVar[dict[str, Field]]

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = checked(declared.name, declared.type, getattr(self, declared.name), declared.metadata)
            object.__setattr__(self, declared.name, value)
        self.validate()

    def validate(self) -> None:
        """Raise ValueError where genes that are fine one by one do not go together."""


class Genes(Checked):
    """Base of the families: a frozen dataclass whose fields are genes and whose `network` is a module."""

    def network(self) -> nn.Module:
        """The PyTorch module: uint8 [N, frames, 41, 41] in, float32 [N, 2] = [speed/900, power/215] out."""
        raise NotImplementedError


def checked(name: str, kind: Any, value: Any, limits: Any) -> Any:
    """`value` as the type `kind` (int, float, bool, str, tuple of one of these, or None); else ValueError."""
    if isinstance(kind, UnionType):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{name} is {value!r}: expected a list of {_PLURAL[item]}")
        if limits.get("length", len(value)) != len(value):
            raise ValueError(f"{name} has {len(value)} values, {list(value)}: expected {limits['length']}")
        return tuple(_checked_item(f"{name}[{i}]", item, one, limits) for i, one in enumerate(value))
    return _checked_item(name, kind, value, limits)


_PLURAL = {int: "whole numbers", float: "numbers", bool: "true or false", str: "names"}
_SINGULAR = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
_ACCEPTED = {int: Integral, float: Real, bool: bool, str: str}


def _checked_item(name: str, kind: type, value: Any, limits: Any) -> Any:
    # True is an int to Python; to a user it is not a number.
    if not isinstance(value, _ACCEPTED[kind]) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}: expected {_SINGULAR[kind]}")
    value = kind(value)
    if "choices" in limits and value not in limits["choices"]:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(repr, limits['choices']))}")
    if "minimum" in limits and not value >= limits["minimum"]:
        raise ValueError(f"{name} is {value}: expected at least {limits['minimum']}")
    if "maximum" in limits and not value <= limits["maximum"]:
        raise ValueError(f"{name} is {value}: expected at most {limits['maximum']}")
    return value
