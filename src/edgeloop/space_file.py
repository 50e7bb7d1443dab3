"""Reading a search space from YAML, with every complaint naming its line (the format: `edgeloop.space`)."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop import yamlfile
from edgeloop.precision import PRECISIONS
from edgeloop.records import Genotype, canonical_json
from edgeloop.space import Gene, Space
from edgeloop.yamlfile import Where, YamlFile

RANGES = ("uniform", "log_uniform", "integer")
CHECKED_POINTS = 300


class SpaceError(ValueError):
    """A space that cannot be searched. The message names file, line, and what was expected."""


def load(
    path: str | Path,
    check: Callable[[Mapping[str, Any]], None],
    genes: Callable[[str], Mapping[str, Any]],
    training_genes: Mapping[str, Any],
) -> Space:
    """Read and check a space.

    `check` raises ValueError for an architecture that cannot be built, `genes` gives the genes of a family (each
    with `required`) or raises ValueError for an unknown one, `training_genes` are those that training understands.
    Raises SpaceError, naming file and line.
    """
    file = yamlfile.load(path)
    reader = _Reader(file)
    declared = {gene.name: gene for gene in reader.genes(genes, training_genes)}
    space = Space(name=file.value["name"], genes=declared, forbidden=tuple(reader.forbidden(declared)))
    _check_points(space, file, check)
    return space


class _Reader:
    """Turns the declaration into genes; every complaint names its line."""

    def __init__(self, file: YamlFile) -> None:
        self.file = file
        value = file.value
        if not isinstance(value, dict):
            raise SpaceError(f"{file.path}: expected a mapping with name, families and training.")
        for key in value:
            if key not in ("name", "precision", "training", "families"):
                raise self.error((key,), f"unknown key '{key}'; expected name, precision, training, families")
        if not isinstance(value.get("name"), str):
            raise self.error(("name",), "the space needs a 'name'")
        if not isinstance(value.get("families"), dict) or not value["families"]:
            raise self.error(("families",), "the space needs at least one family under 'families'")
        if not isinstance(value.get("training"), dict):
            raise self.error(("training",), "the space needs 'training' genes, at least lr")

    def error(self, where: Where, message: str) -> SpaceError:
        return SpaceError(f"{self.file.at(where)}: {message}.")

    def genes(self, known: Callable[[str], Mapping[str, Any]], training: Mapping[str, Any]) -> Iterator[Gene]:
        value = self.file.value
        precision = self.gene("precision", value.get("precision", ["fp32"]), ("precision",), {})
        for choice in precision.choices or ():
            if choice not in PRECISIONS:
                raise self.error(
                    precision.where, f"unknown precision '{choice}'; expected one of {', '.join(PRECISIONS)}"
                )
        yield Gene("family", tuple(value["families"]), None, False, False, {}, ("families",))
        yield precision
        yield from self.group("training", value["training"], ("training",), {}, training)
        for family, declaration in value["families"].items():
            where = ("families", family)
            try:
                family_genes = known(family)
            except ValueError as error:
                raise self.error(where, str(error).rstrip(".")) from error
            if not isinstance(declaration, dict):
                raise self.error(where, f"family '{family}' needs a mapping of genes")
            clauses = {name: part for name, part in declaration.items() if name != "forbidden"}
            yield from self.group(family, clauses, where, {"family": (family,)}, family_genes)

    def group(
        self,
        group: str,
        declaration: Mapping[str, Any],
        where: Where,
        when: Mapping[str, tuple],
        known: Mapping[str, Any],
    ) -> Iterator[Gene]:
        earlier: dict[str, Gene] = {}
        for key, spec in declaration.items():
            base = str(key).partition(".")[0]
            if base not in known:
                raise self.error(
                    (*where, key), f"unknown gene '{base}' of '{group}'; it has {', '.join(sorted(known))}"
                )
            gene = self.gene(f"{group}:{key}", spec, (*where, key), when, earlier)
            earlier[key] = gene
            yield gene
        given = {str(key).partition(".")[0] for key in declaration}
        missing = [name for name, info in known.items() if info.required and name not in given]
        if missing:
            raise self.error(where, f"'{group}' lacks the gene{'s' if len(missing) > 1 else ''} {', '.join(missing)}")

    def gene(
        self,
        name: str,
        spec: Any,
        where: Where,
        when: Mapping[str, tuple],
        earlier: Mapping[str, Gene] | None = None,
    ) -> Gene:
        conditions = dict(when)
        if isinstance(spec, dict):
            spec = dict(spec)
            conditions |= self.conditions(name, spec.pop("when", {}), where, earlier or {})
            if "default" in spec:
                default = spec.pop("default")
                gene = self.gene(name, spec, where, conditions)
                return replace(gene, default=self.default(gene, default))
            if len(spec) != 1:
                raise self.error(
                    where,
                    f"gene '{name}' needs exactly one of choice, {', '.join(RANGES)}; it has "
                    f"{', '.join(spec) or 'none'}",
                )
            ((kind, given),) = spec.items()
            if kind in RANGES:
                return Gene(
                    name,
                    None,
                    self.bounds(name, kind, given, where),
                    kind == "log_uniform",
                    kind == "integer",
                    conditions,
                    where,
                )
            if kind != "choice":
                raise self.error(
                    where, f"gene '{name}': unknown '{kind}'; expected choice, {', '.join(RANGES)}, default or when"
                )
        else:
            given = spec if isinstance(spec, list) else [spec]
        if not isinstance(given, list) or not given:
            raise self.error(where, f"gene '{name}' has an empty range; give at least one value")
        if len({canonical_json(value) for value in given}) < len(given):
            raise self.error(where, f"gene '{name}' has a value twice: {given}")
        return Gene(name, tuple(given), None, False, False, conditions, where)

    def default(self, gene: Gene, value: Any) -> Any:
        if not gene.allows(value):
            raise self.error(gene.where, f"gene '{gene.name}': its default {value} is none of its values")
        # What is equal may be written otherwise, as 4.0 for 4, and would be another genotype.
        return value if gene.choices is None else gene.choices[gene.choices.index(value)]

    def bounds(self, name: str, kind: str, given: Any, where: Where) -> tuple[float, float]:
        if not (isinstance(given, list) and len(given) == 2 and all(_is_number(bound) for bound in given)):
            raise self.error(where, f"gene '{name}': {kind} needs two numbers [low, high], not {given}")
        low, high = given
        if not low < high:
            raise self.error(where, f"gene '{name}' has an empty range: {low} is not below {high}")
        if kind == "log_uniform" and low <= 0:
            raise self.error(where, f"gene '{name}': log_uniform needs bounds above 0, not {low}")
        if kind == "integer" and not all(isinstance(bound, int) for bound in given):
            raise self.error(where, f"gene '{name}': integer needs whole bounds, not {given}")
        return (low, high)

    def conditions(self, name: str, when: Any, where: Where, earlier: Mapping[str, Gene]) -> dict[str, tuple]:
        if not isinstance(when, dict):
            raise self.error(where, f"gene '{name}': 'when' needs a mapping {{gene: [values]}}")
        conditions = {}
        for parent, values in when.items():
            if parent not in earlier:
                raise self.error((*where, "when"), f"gene '{name}' depends on '{parent}', which is not a gene above it")
            if not isinstance(values, list) or not values:
                raise self.error((*where, "when"), f"gene '{name}': the condition on '{parent}' needs a list of values")
            for value in values:
                if value not in (earlier[parent].choices or ()):
                    raise self.error(
                        (*where, "when"),
                        f"gene '{name}' depends on {parent} = {value}, which '{parent}' "
                        f"never is; it is one of {list(earlier[parent].choices or ())}",
                    )
            conditions[earlier[parent].name] = tuple(values)
        return conditions

    def forbidden(self, genes: Mapping[str, Gene]) -> Iterator[dict[str, Any]]:
        for family, declaration in self.file.value["families"].items():
            where = ("families", family, "forbidden")
            clauses = declaration.get("forbidden", [])
            if not isinstance(clauses, list) or not all(isinstance(clause, dict) and clause for clause in clauses):
                raise self.error(where, "'forbidden' needs a list of {gene: value} combinations")
            for position, clause in enumerate(clauses):
                named = {f"{family}:{key}": value for key, value in clause.items()}
                for name, value in named.items():
                    if name not in genes or value not in (genes[name].choices or ()):
                        raise self.error(
                            (*where, position),
                            f"'forbidden' names {name} = {value}, which the space never draws",
                        )
                yield named


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_points(space: Space, file: YamlFile, check: Callable[[Mapping[str, Any]], None]) -> None:
    """Every architecture that can be drawn must be buildable: all of a small family, a sample of a large one. And the
    defaults must be possible together: a family begins with them."""
    for family in file.value["families"]:
        at = file.at(("families", family))
        for genotype in _points(space, family):
            try:
                check(genotype["architecture"])
            except ValueError as error:
                raise SpaceError(
                    f"{at}: the family '{family}' can draw a network that cannot be built: "
                    f"{str(error).rstrip('.')}. Change the values, or exclude the combination under 'forbidden'."
                ) from error
        try:
            space.sample(np.random.default_rng(0), family=family, usual=True)
        except ValueError as error:
            raise SpaceError(
                f"{at}: the defaults of the family '{family}' are forbidden together, but its first networks have "
                "them. Change a default, or what is under 'forbidden'."
            ) from error


def _points(space: Space, family: str) -> Iterator[Genotype]:
    genes = [gene for name, gene in space.genes.items() if name.startswith(f"{family}:")]
    rng = np.random.default_rng(0)
    if math.prod(len(gene.choices) if gene.choices else math.inf for gene in genes) <= CHECKED_POINTS:
        names = [gene.name for gene in genes]
        draws = (dict(zip(names, values, strict=True)) for values in product(*(gene.choices for gene in genes)))
    else:
        draws = ({} for _ in range(20 * CHECKED_POINTS))
    points = (space.complete({"family": family, **draw}, rng) for draw in draws)
    allowed = [space.genotype(flat) for flat in islice(filter(space.is_allowed, points), CHECKED_POINTS)]
    if not allowed:
        raise SpaceError(f"family '{family}' of space '{space.name}': everything that it could draw is forbidden.")
    yield from allowed
