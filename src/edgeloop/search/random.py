"""Random search: every proposal is drawn from the space.

Every strategy is a module with the two functions of this one. They are pure: what they return depends on their
arguments alone, the generator included.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.records import Genotype
from edgeloop.search.costs import Costs
from edgeloop.search.results import Knowledge


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """Architectures and recipes to consider, the most promising first. The caller takes `count` of them that are
    different and were never trained, and asks no further; it may take many to find so many."""
    while True:
        yield knowledge.space.sample(rng)


def choose(
    knowledge: Knowledge,
    feasible: Sequence[tuple[Genotype, Costs]],
    count: int,
    rng: np.random.Generator,
    options: Mapping[str, Any],
) -> list[Genotype]:
    """Those to train, at most `count`, among the feasible proposals with their screened costs (empty: not screened)."""
    return [genotype for genotype, _ in feasible[:count]]
