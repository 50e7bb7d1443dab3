"""Optuna's samplers as strategies: a study is built anew from the history for each decision, and asked.

The gene's conditions are followed as Optuna is meant to be used, by asking for a gene only where it is active.
Constraints are the violation of the budgets, objectives are the loss and the costs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import TrialState, create_trial

from edgeloop.records import Genotype
from edgeloop.search.results import Knowledge, Result
from edgeloop.space import Gene

FAR = 1e6
"""Stands for an infinite violation: Optuna wants numbers."""
TRIES = 20
POPULATION = 24
"""Of NSGA-II; Optuna's own default of 50 is one evaluation short of a whole small search."""


def propose(
    knowledge: Knowledge, sampler: BaseSampler, rng: np.random.Generator, generation_key: str | None = None
) -> Iterator[Genotype]:
    """What `sampler` asks for next. Each answer stands as running, so that the following ones keep away from it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * (1 + len(knowledge.objectives)), sampler=sampler)
    complete = 0
    for result in knowledge.results:
        attributes = {} if generation_key is None else {generation_key: complete // POPULATION}
        study.add_trial(_trial(knowledge, result, attributes))
        complete += result.objectives is not None
    while True:
        yield _ask(knowledge, study, rng)


def _ask(knowledge: Knowledge, study: optuna.Study, rng: np.random.Generator) -> Genotype:
    space = knowledge.space
    for _ in range(TRIES):
        trial, flat = study.ask(), {}
        for name, gene in space.genes.items():
            if space.is_active(gene, flat):
                flat[name] = _suggest(trial, name, gene)
        genotype = space.genotype(flat)
        if space.is_allowed(flat):
            return genotype
    return space.mutate(genotype, rng)  # Optuna knows of no forbidden combinations


def _suggest(trial: optuna.Trial, name: str, gene: Gene) -> Any:
    if gene.choices is not None:  # a choice may be a list, which Optuna does not take: choose its number
        return gene.choices[trial.suggest_categorical(name, range(len(gene.choices)))]
    low, high = gene.bounds
    if gene.integer:
        return trial.suggest_int(name, int(low), int(high))
    return gene.rounded(trial.suggest_float(name, low, high, log=gene.log))


def _trial(knowledge: Knowledge, result: Result, attributes: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    flat = knowledge.space.flatten(result.genotype)
    genes = {name: knowledge.space.genes[name] for name in flat}
    parameters = {
        name: flat[name] if gene.choices is None else gene.choices.index(flat[name]) for name, gene in genes.items()
    }
    distributions = {name: _distribution(gene) for name, gene in genes.items()}
    if result.objectives is None:
        return create_trial(state=TrialState.FAIL, params=parameters, distributions=distributions)
    return create_trial(
        values=list(result.objectives),
        params=parameters,
        distributions=distributions,
        system_attrs=dict(attributes),
        constraints={"budgets": min(result.violation, FAR) if result.violation > 0 else -1.0},
    )


def _distribution(gene: Gene) -> BaseDistribution:
    if gene.choices is not None:
        return CategoricalDistribution(range(len(gene.choices)))
    if gene.integer:
        return IntDistribution(*map(int, gene.bounds))
    return FloatDistribution(*gene.bounds, log=gene.log)


def seed(rng: np.random.Generator) -> int:
    """A seed for a sampler."""
    return int(rng.integers(2**31))


NSGA2_GENERATION = NSGAIISampler._get_generation_key()
