"""Genotypes as rows of numbers, and how far two of them are apart in each gene.

A gene is a number where its values have an order (a width, a learning rate), else a code. Distances are at most 1: the
difference of two numbers over the gene's range, 1 between different codes, and 1 between a value and a gene that is not
active. Numbered genes of the same choices (op0, op1, ...; depths.0, depths.1, ...) are of a kind: how often each choice
occurs among them is further columns, because a good deal of what a network is worth lies in these totals.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.records import Genotype
from edgeloop.space import Gene, Space

BLOCK = 8_000_000
"""So many numbers are held at once while distances are summed up."""


class Encoding:
    """The genes of a space that can vary, as columns.

    training: with False, only the genes that costs depend on. further: so many more columns, which the caller fills
    with numbers from 0 to 1.
    """

    def __init__(self, space: Space, *, training: bool = True, further: int = 0) -> None:
        self._space, self._training = space, training
        self._genes = [
            gene
            for name, gene in space.genes.items()
            if (gene.is_variable or gene.when) and (training or not name.startswith("training:"))
        ]
        self._values = [_values(gene) for gene in self._genes]
        self._kinds = _kinds(self._genes)
        totals = sum(len(values) for _, values in self._kinds)
        self._ordered = np.array([*map(_is_ordered, self._genes), *[True] * (totals + further)], bool)
        self.columns = len(self._ordered)

    def encode(self, genotypes: Sequence[Genotype], *further: np.ndarray) -> np.ndarray:
        """[n, columns], the `further` columns [n] last; NaN where a gene is not active.

        Raises ValueError when a genotype is not of the space.
        """
        rows = np.full((len(genotypes), len(self._genes)), np.nan)
        for row, genotype in zip(rows, genotypes, strict=True):
            flat = self._space.flatten(genotype, training=self._training)
            for column, (gene, values) in enumerate(zip(self._genes, self._values, strict=True)):
                if gene.name in flat:
                    row[column] = _number(gene, values, flat[gene.name])
        totals = [(rows[:, columns] == value).mean(1) for columns, values in self._kinds for value in values]
        return np.column_stack([rows, *totals, *further])

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Squared distances by column: [columns, n, m] between a [n, columns] and b [m, columns]."""
        result = np.empty((self.columns, len(a), len(b)))
        for column in range(self.columns):
            result[column] = self._squared(column, a, b)
        return result

    def distance(self, a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Their sums weighted by each row of `weights` [draws, columns]: [draws, n, m]."""
        result = np.empty((len(weights), len(a), len(b)))
        rows = max(1, BLOCK // max(1, self.columns * len(b)))
        for first in range(0, len(a), rows):
            squares = self.distances(a[first : first + rows], b)
            result[:, first : first + rows] = np.tensordot(weights, squares, 1)
        return result

    def _squared(self, column: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        one, two = a[:, column, None], b[None, :, column]
        square = (one - two) ** 2 if self._ordered[column] else (one != two).astype(float)
        absent = np.isnan(one), np.isnan(two)
        if absent[0].any() or absent[1].any():
            square[absent[0] ^ absent[1]] = 1.0
            square[absent[0] & absent[1]] = 0.0
        return square


def _kinds(genes: Sequence[Gene]) -> list[tuple[list[int], list[float]]]:
    """The columns of numbered genes that have the same choices, and the numbers of these choices."""
    found: dict[str, list[int]] = defaultdict(list)
    for column, gene in enumerate(genes):
        stem = gene.name.rstrip("0123456789")
        if stem != gene.name and gene.choices is not None:
            found[f"{stem} {gene.choices}"].append(column)
    return [(columns, sorted(_values(genes[columns[0]]).values())) for columns in found.values() if len(columns) > 1]


def _is_ordered(gene: Gene) -> bool:
    return gene.choices is None or (
        len(gene.choices) > 2 and all(isinstance(c, int | float) and not isinstance(c, bool) for c in gene.choices)
    )


def _values(gene: Gene) -> dict[str, float] | None:
    """The number of each choice; None for a range."""
    if gene.choices is None:
        return None
    if not _is_ordered(gene):
        return {repr(choice): float(code) for code, choice in enumerate(gene.choices)}
    low, high = min(gene.choices), max(gene.choices)
    if low > 0:  # widths, rates: a factor of two is a step
        return {repr(choice): float(np.log(choice / low) / np.log(high / low)) for choice in gene.choices}
    return {repr(choice): (choice - low) / (high - low) for choice in gene.choices}


def _number(gene: Gene, values: dict[str, float] | None, value: Any) -> float:
    if values is None:
        return gene.position(value)
    if repr(value) not in values:
        raise ValueError(f"gene '{gene.name}' is {value!r}: expected one of {', '.join(values)}")
    return values[repr(value)]
