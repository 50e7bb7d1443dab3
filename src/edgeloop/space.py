"""Search spaces: which genes there are, when each is active, and how genotypes are drawn and varied.

A space is declared in YAML (see config/README.md)::

    name: example
    precision: [fp32]
    training:
      lr: {log_uniform: [1.0e-3, 1.0e-2], default: 4.0e-3}   # what the first networks are trained with
    families:
      conv2d:
        frames: [4, 8, 16]                        # a choice
        pixels: 32                                # fixed
        head: {choice: [mean, gru], default: mean}   # what the family's first networks have
        units: {choice: [8, 16], when: {head: [gru]}}   # active under a condition
        depths.0: [1, 2]                          # genes NAME.0, NAME.1, ... make the list NAME
        forbidden: [{frames: 16, head: gru}]      # never drawn together

Genotypes are plain data; no state is kept between two draws, so that they depend on the generator alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.records import Genotype
from edgeloop.yamlfile import Where

TRIES = 1000  # to draw what is not forbidden
STEP = 0.2  # of a range: the standard deviation of a mutation
FLOAT_DIGITS = 6  # a learning rate of 0.00123456 reads better than 17 digits, and is as good


@dataclass(frozen=True)
class Gene:
    """One gene: where it goes in the genotype, what it may be, and when it is active. default: what the first networks
    have, those of a family of which nothing is known yet; None where the space names none."""

    name: str
    choices: tuple[Any, ...] | None
    bounds: tuple[float, float] | None
    log: bool
    integer: bool
    when: dict[str, tuple[Any, ...]]
    where: Where
    default: Any = None

    @property
    def is_variable(self) -> bool:
        """Whether it has more than one value."""
        return self.bounds is not None or len(self.choices) > 1

    def draw(self, rng: np.random.Generator) -> Any:
        """A value from the gene's prior: every choice is as likely, ranges are uniform or log-uniform."""
        if self.choices is not None:
            return self.choices[rng.integers(len(self.choices))]
        return self._at(rng.random())

    def vary(self, value: Any, rng: np.random.Generator) -> Any:
        """Another value: any other choice, or a point nearby in the range."""
        for _ in range(TRIES):
            other = self.draw(rng) if self.choices is not None else self._at(rng.normal(self.position(value), STEP))
            if other != value:
                return other
        raise ValueError(f"gene '{self.name}' has no value besides {value}")

    def allows(self, value: Any) -> bool:
        """Whether the gene can have this value."""
        if self.choices is not None:
            return value in self.choices
        number = isinstance(value, int if self.integer else int | float) and not isinstance(value, bool)
        return number and self.bounds[0] <= value <= self.bounds[1]

    def position(self, value: float) -> float:
        """Where in its range a value is, from 0 to 1."""
        low, high = np.log(self.bounds) if self.log else self.bounds
        return ((np.log(value) if self.log else value) - low) / (high - low)

    def _at(self, position: float) -> float | int:
        low, high = self.bounds
        position = min(max(position, 0.0), 1.0)
        if self.integer:
            return min(int(low + position * (high - low + 1)), high)
        value = low * (high / low) ** position if self.log else low + position * (high - low)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """A value of a range as genotypes have it."""
        low, high = self.bounds
        return min(max(float(f"{value:.{FLOAT_DIGITS}g}"), low), high)


@dataclass(frozen=True)
class Space:
    """A checked search space. `genes` are in an order in which conditions refer to earlier genes only."""

    name: str
    genes: dict[str, Gene]
    forbidden: tuple[dict[str, Any], ...]

    def sample(self, rng: np.random.Generator, *, family: str | None = None, usual: bool = False) -> Genotype:
        """Draw a genotype, of `family` where one is named: every active gene from its own prior. A `usual` one has the
        default of each gene that has one.

        Raises ValueError where all that it draws is forbidden.
        """
        given = {} if family is None else {"family": family}
        if usual:
            given |= self.defaults
        for _ in range(TRIES):
            if self.is_allowed(flat := self.complete(given, rng)):
                return self.genotype(flat)
        what = "everything with the defaults" if usual else "everything that it can draw"
        raise ValueError(f"space '{self.name}': nearly {what} is forbidden")

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """Change one active gene; genes that this activates are drawn, genes that it deactivates are dropped. Another
        family comes with its defaults."""
        values = self.flatten(genotype)
        variable = [name for name in values if self.genes[name].is_variable]
        if not variable:
            return genotype
        for _ in range(TRIES):
            name = variable[rng.integers(len(variable))]
            changed = {name: self.genes[name].vary(values[name], rng)}
            child = self.complete({**(self.defaults if name == "family" else {}), **values, **changed}, rng)
            if self.is_allowed(child):
                return self.genotype(child)
        return self.sample(rng)

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """Each gene from either parent; genes that only the mixture activates are drawn."""
        one, two = self.flatten(first), self.flatten(second)
        for _ in range(TRIES):
            mixed = {
                name: (one if name not in two or (name in one and rng.random() < 0.5) else two)[name]
                for name in {**one, **two}
            }
            child = self.complete(mixed, rng)
            if self.is_allowed(child):
                return self.genotype(child)
        return first

    @property
    def families(self) -> tuple[str, ...]:
        """The names of the families that it has."""
        return self.genes["family"].choices

    def flatten(self, genotype: Genotype, *, training: bool = True) -> dict[str, Any]:
        """The active genes of `genotype` as {gene name: value}, in the order of the space.

        With `training` False, without those of training.

        Raises ValueError when the genotype is not of this space.
        """
        family = genotype["architecture"]["family"]
        flat: dict[str, Any] = {}
        for name, gene in self.genes.items():
            if not self.is_active(gene, flat) or (not training and name.startswith("training:")):
                continue
            group, _, key = name.partition(":")
            source = {
                "family": {"": family},
                "precision": {"": genotype["precision"]},
                "training": genotype["training"],
            }.get(group, genotype["architecture"])
            base, _, position = key.partition(".")
            try:
                value = source[base][int(position)] if position else source[base]
            except (KeyError, IndexError) as error:
                raise ValueError(f"genotype without the gene '{name}' of space '{self.name}': {genotype}") from error
            flat[name] = value
        return flat

    def with_recipe(self, genes: Genotype, rng: np.random.Generator, recipe: Mapping[str, Any]) -> Genotype:
        """A genotype with the architecture and precision of `genes`, its training genes those of `recipe` (as `recipe`
        and `default_recipe` give them), or drawn where it has none."""
        return self.genotype(self.complete({**recipe, **self.flatten(genes, training=False)}, rng))

    def recipe(self, genotype: Genotype) -> dict[str, Any]:
        """The training genes of `genotype` as {gene name: value}."""
        return {name: value for name, value in self.flatten(genotype).items() if name.startswith("training:")}

    @property
    def defaults(self) -> dict[str, Any]:
        """The genes for which the space names a default, as {gene name: value}."""
        return {name: gene.default for name, gene in self.genes.items() if gene.default is not None}

    @property
    def default_recipe(self) -> dict[str, Any]:
        """Those of training among `defaults`."""
        return {name: value for name, value in self.defaults.items() if name.startswith("training:")}

    def holds(self, genotype: Genotype) -> bool:
        """Whether `genotype` is one of this space: it has exactly the active genes, with values that they can take."""
        try:
            flat = self.flatten(genotype)
        except ValueError:
            return False
        possible = all(self.genes[name].allows(value) for name, value in flat.items())
        return possible and self.genotype(flat) == genotype and self.is_allowed(flat)

    def genotype(self, flat: Mapping[str, Any]) -> Genotype:
        """The genotype of {gene name: value}: the inverse of `flatten`."""
        values = dict(flat)
        genotype: Genotype = {
            "architecture": {"family": values.pop("family")},
            "precision": values.pop("precision"),
            "training": {},
        }
        for name, value in values.items():
            group, _, key = name.partition(":")
            target = genotype["training" if group == "training" else "architecture"]
            base, _, position = key.partition(".")
            if position:
                target.setdefault(base, []).append(value)
            else:
                target[key] = value
        return genotype

    def is_active(self, gene: Gene, flat: Mapping[str, Any]) -> bool:
        """Whether the conditions of `gene` hold among `flat`, which has the genes that stand before it."""
        return all(parent in flat and flat[parent] in values for parent, values in gene.when.items())

    def is_allowed(self, flat: Mapping[str, Any]) -> bool:
        """Whether no forbidden combination is among the values."""
        return not any(all(flat.get(name) == value for name, value in clause.items()) for clause in self.forbidden)

    def complete(self, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """`values` without the genes that they leave inactive, and with the missing active ones drawn."""
        flat: dict[str, Any] = {}
        for name, gene in self.genes.items():
            if self.is_active(gene, flat):
                flat[name] = values[name] if name in values else gene.draw(rng)
        return flat
