"""Optuna's NSGA-II (Deb et al. 2002), a strategy to compare with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from optuna.samplers import NSGAIISampler

from edgeloop.records import Genotype
from edgeloop.search import optuna_samplers, random
from edgeloop.search.results import Knowledge


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """Children of the youngest full population of the history."""
    sampler = NSGAIISampler(seed=optuna_samplers.seed(rng), population_size=optuna_samplers.POPULATION)
    return optuna_samplers.propose(knowledge, sampler, rng, optuna_samplers.NSGA2_GENERATION)


choose = random.choose
