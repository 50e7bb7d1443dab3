"""Optuna's multi-objective tree-structured Parzen estimator (Ozaki et al. 2022), a strategy to compare with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from optuna.samplers import TPESampler

from edgeloop.records import Genotype
from edgeloop.search import optuna_samplers, random
from edgeloop.search.results import Knowledge


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """What TPE asks for next, given the history."""
    sampler = TPESampler(seed=optuna_samplers.seed(rng), constant_liar=True)
    return optuna_samplers.propose(knowledge, sampler, rng)


choose = random.choose
