"""Multi-objective regularised evolution with the constraint first.

Parents are found by tournament among the youngest results (regularisation by age: Real et al. 2019, "Regularized
evolution for image classifier architecture search"). A tournament is won by feasibility (Deb 2000), then by the rank
of the Pareto front, then by crowding distance (Deb et al. 2002, NSGA-II). Children are mutants, or mutated crossings
of two parents.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.records import Genotype
from edgeloop.search import pareto
from edgeloop.search.costs import Costs
from edgeloop.search.results import Knowledge, Result
from edgeloop.space import Space

DEFAULTS = {"population": 24, "tournament": 6, "random_share": 0.1, "crossover_share": 0.3}
STRANGERS_SHARE = 0.25
"""Of the children, those of near misses of families that are still unknown, while there are such."""
NEAR_MISSES = 4
"""So many of a family are parents."""


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """Children of the present population, or random genotypes where there is none yet; and strangers."""
    options, space = {**DEFAULTS, **options}, knowledge.space
    alive = knowledge.trained[-options["population"] :]
    fitness = _fitness(alive)

    def parent() -> Genotype:
        entrants = rng.choice(len(alive), size=min(options["tournament"], len(alive)), replace=False)
        return alive[min(entrants, key=lambda entrant: fitness[entrant])].genotype

    near_misses, known = knowledge.near_misses(NEAR_MISSES), knowledge.known_families
    while True:
        if near_misses and rng.random() < STRANGERS_SHARE:
            yield stranger(knowledge, near_misses, rng)
            continue
        if not alive or rng.random() < options["random_share"]:
            child = drawn(space, known, rng)
            # The first losses are to tell the architectures apart, not how well each was trained.
            yield space.with_recipe(child, rng, space.recipe(child) | space.default_recipe)
            continue
        child = parent()
        if rng.random() < options["crossover_share"]:
            child = space.crossover(child, parent(), rng)
        yield space.mutate(child, rng)


def drawn(space: Space, known: Collection[str], rng: np.random.Generator, family: str | None = None) -> Genotype:
    """A random genotype, of `family` where one is named; a usual one where the family is not `known`. By the first
    network that is trained of it, a family is judged."""
    family = family or space.genes["family"].draw(rng)
    return space.sample(rng, family=family, usual=family not in known)


def stranger(knowledge: Knowledge, near_misses: Sequence[Sequence[Genotype]], rng: np.random.Generator) -> Genotype:
    """A child of networks that miss the budgets, of a family of which nothing was trained: where few networks of a
    family are fast enough, chance alone would hardly meet them, and it would never be tried. near_misses: by family,
    see Knowledge."""
    space, family = knowledge.space, near_misses[rng.integers(len(near_misses))]
    one, two = (family[rng.integers(len(family))] for _ in range(2))
    one, two = (space.with_recipe(genes, rng, space.default_recipe) for genes in (one, two))
    return space.mutate(space.crossover(one, two, rng), rng)


def choose(
    knowledge: Knowledge,
    feasible: Sequence[tuple[Genotype, Costs]],
    count: int,
    rng: np.random.Generator,
    options: Mapping[str, Any],
) -> list[Genotype]:
    """The networks to train: one of each family that is still unknown, since who has no parent there will hardly have
    children there; then the first ones, which are as good as any: children come in no order of merit."""
    unknown = knowledge.unknown_families([genotype for genotype, _ in feasible])
    first = [positions[0] for positions in unknown.values()]
    rest = [position for position in range(len(feasible)) if position not in first]
    return [feasible[position][0] for position in [*first, *rest][:count]]


def _fitness(alive: Sequence[Result]) -> list[tuple[float, ...]]:
    """Sort keys, smaller is fitter: (violation, rank, -crowding, position)."""
    keys: list[tuple[float, ...]] = [(result.violation, 0.0, 0.0, position) for position, result in enumerate(alive)]
    feasible = [position for position, result in enumerate(alive) if result.feasible]
    if not feasible:
        return keys
    points = [alive[position].objectives for position in feasible]
    ranks = pareto.ranks(points)
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        for member, distance in zip(members, pareto.crowding([points[m] for m in members]), strict=True):
            position = feasible[member]
            keys[position] = (0.0, float(rank), -float(distance), position)
    return keys
