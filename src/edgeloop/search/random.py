"""Random search: every proposal is drawn from the space.

Every strategy is a module with the two functions of this one. They are pure: what they return depends on their
arguments alone, the generator included.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.records import Genotype
from edgeloop.search.results import Result
from edgeloop.space import Space


def propose(space: Space, history: Sequence[Result], rng: np.random.Generator, options: Mapping[str, Any]) -> Genotype:
    """One more architecture and recipe to consider. The caller asks again for as many as it needs, and drops
    those that have been trained or proposed already."""
    return space.sample(rng)


def choose(
    history: Sequence[Result],
    feasible: Sequence[tuple[Genotype, float | None]],
    count: int,
    rng: np.random.Generator,
    options: Mapping[str, Any],
) -> list[Genotype]:
    """Those to train among the feasible proposals, given with their screened latency in ms (None: not screened)."""
    return [genotype for genotype, _ in feasible[:count]]
