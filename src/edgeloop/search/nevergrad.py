"""Nevergrad's optimisers on one weighted sum of loss and cost: the strategy of Aach et al. (2025).

The sum is weight * loss / (median loss of the first generation) + (1 - weight) * latency / budget. A failed candidate
counts as the worst of all. The optimiser is built anew from the history for each decision, told all of it, and asked.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

with warnings.catch_warnings():  # that there is no matplotlib
    warnings.simplefilter("ignore", UserWarning)
    import nevergrad as ng

from edgeloop.records import Genotype
from edgeloop.search import random
from edgeloop.search.results import Knowledge
from edgeloop.space import Gene

DEFAULTS = {"optimizer": "NGOpt", "weight": 0.5, "trainings": 100}
"""`optimizer`: a name in nevergrad.optimizers.registry, such as NGOpt or OnePlusOne. `trainings`: for how many in all
the optimiser chooses its method."""


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """What the optimiser asks for next, given the history. The values of inactive genes mean nothing."""
    options, space = {**DEFAULTS, **options}, knowledge.space
    parameters = ng.p.Dict(**{name: _parameter(gene) for name, gene in space.genes.items() if gene.is_variable})
    parameters.random_state = np.random.RandomState(rng.integers(2**31))
    trainings = max(options["trainings"], len(knowledge.results) + count)
    optimizer = ng.optimizers.registry[options["optimizer"]](parametrization=parameters, budget=trainings)
    losses = _losses(knowledge, options["weight"])
    for result, loss in zip(knowledge.results, losses, strict=True):
        flat = space.flatten(result.genotype)
        value = {name: parameter.value for name, parameter in parameters.items()}
        value |= {name: _told(space.genes[name], flat[name]) for name in value if name in flat}
        optimizer.tell(optimizer.parametrization.spawn_child(new_value=value), loss)
    while True:
        asked = optimizer.ask().value
        values = {name: _asked(space.genes[name], value) for name, value in asked.items()}
        flat = space.complete(values, rng)
        if space.is_allowed(flat):
            yield space.genotype(flat)
        else:
            # An answer like any other for the caller's patience, and the optimiser would ask for the same again.
            yield space.sample(rng)


choose = random.choose


def _parameter(gene: Gene) -> ng.p.Parameter:
    if gene.choices is not None:
        return ng.p.Choice(list(range(len(gene.choices))))
    low, high = gene.bounds
    if gene.log:
        return ng.p.Log(lower=low, upper=high)
    scalar = ng.p.Scalar(lower=low, upper=high)
    return scalar.set_integer_casting() if gene.integer else scalar


def _told(gene: Gene, value: Any) -> Any:
    return gene.choices.index(value) if gene.choices is not None else value


def _asked(gene: Gene, value: Any) -> Any:
    if gene.choices is not None:
        return gene.choices[value]
    return int(value) if gene.integer else gene.rounded(value)


def _losses(knowledge: Knowledge, weight: float) -> list[float]:
    objectives = [result.objectives for result in knowledge.results]
    known = [each for each in objectives if each is not None]
    if not known:
        return [1.0] * len(objectives)
    first = knowledge.results[0].generation
    scale = np.median(
        [r.objectives[0] for r in knowledge.results if r.generation == first and r.objectives is not None]
        or [loss for loss, *_ in known]
    )
    sums = [
        None
        if each is None
        else weight * each[0] / scale + (1 - weight) * np.mean(np.divide(each[1:], knowledge.limits))
        for each in objectives
    ]
    worst = max(each for each in sums if each is not None)
    return [float(worst if each is None else each) for each in sums]
