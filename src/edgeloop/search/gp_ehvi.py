"""Gaussian processes and expected hypervolume improvement, with costs measured on the device.

What a network costs is known before anything is trained, so that only its loss has to be guessed. The pool to measure
is already the most promising part of some thousand children of the best results and random genotypes, by predicted
loss and predicted costs; what to train of it is chosen by predicted loss and measured costs.

Both choices are greedy: the next one is the network from which the hypervolume is expected to grow most
(`improvement`), given that those chosen before it turn out as predicted ("kriging believer", Ginsbourger et al. 2010).
One of a generation is that of the best predicted loss instead, the end of the front that people use first; and one
of eight is drawn from the pool, because a model that only sees what it has chosen itself grows too sure of the rest.
Families of which no training has told anything come before that. And as long as there are few results (`loss_first`),
costs count only as far as budgets have to be met: most of a front of mediocre networks is of no use once there are good
ones, and those that are fast among them are soon found. Measured by benchmarks/few_trainings.py.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from scipy.special import ndtr

from edgeloop.records import Genotype, architecture_id, candidate_id
from edgeloop.search import evolution, pareto
from edgeloop.search.costs import WORST, Costs, violation
from edgeloop.search.encoding import Encoding
from edgeloop.search.gaussian_process import GaussianProcess
from edgeloop.search.improvement import expected_improvement
from edgeloop.search.results import Knowledge

DEFAULTS = {"start": 16, "loss_first": 24, "children": 1000, "reference": 0.3}
PARENTS = 24
CROSSOVER_SHARE, FRESH_SHARE = 0.3, 0.3
"""Of the children, those of two parents (among the bred ones), and those drawn from the space."""
RELATIVES_SHARE = 0.5
"""Of the others, where there are several families, those that have nothing but the family of a good result. What was
trained first of a family is one of its worse networks as a rule, and its children are like it."""
KNOWN_RECIPE_SHARE = 0.9
"""Of those that are drawn, such that take the recipe of a good result: a network that was trained badly tells nothing
about networks like it."""
LOTTERY_SHARE = 0.1
"""Of the pool, children that nothing speaks for."""
UNKNOWN_SHARE = 0.25
"""Of the pool, networks of families of which no training has told anything yet, while there are such."""
TRIES_PER_CHILD = 10
REMEMBERED = 500
"""Of what was screened and not trained, so many are considered again."""
RECIPES = 3
"""Of them, each is considered with the recipes of so many results, those of the lowest loss."""
REVISED = 100
"""As long as more than so many are remembered, only the so many most promising with more than one recipe."""
PER_CHANCE = 8
"""One of so many trainings is drawn from the pool."""
SHORTLIST = 300
"""Of the children, so many with the largest expected improvement on their own compete for a place beside others."""
CLIP = 0.9
"""Losses above this quantile count as that: how bad bad networks are says nothing about the good ones, and would be
most of what there is to explain."""
MOST = 1500
"""A prediction rests on at most so many results: it takes time with their third power."""
MOST_COSTS = 300
SAMPLE = 300
"""Random networks that stand for the whole space."""
LEAST = 8
"""So many own results have a process of their own beside earlier runs'."""
LEAST_CHANCE = 0.02


def propose(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> Iterator[Genotype]:
    """The pool to screen: the most promising children, then random ones; evolution's as long as little is known."""
    options = {**DEFAULTS, **options}
    if _enough(knowledge, options):
        yield from _promising(knowledge, count, rng, options)
    yield from evolution.propose(knowledge, count, rng, {})


def choose(
    knowledge: Knowledge,
    feasible: Sequence[tuple[Genotype, Costs]],
    count: int,
    rng: np.random.Generator,
    options: Mapping[str, Any],
) -> list[Genotype]:
    """The networks to train: by expected improvement, one by predicted loss alone, and one of each family that is
    still unknown, or one by chance. What was screened in earlier generations is measured, too, and may be chosen as
    well."""
    options = {**DEFAULTS, **options}
    if _enough(knowledge, options):
        feasible = [*feasible, *_remembered(knowledge, [genotype for genotype, _ in feasible], rng)]
    costs = [knowledge.objective_costs(cost) for _, cost in feasible]
    if not _enough(knowledge, options) or len(feasible) <= count or None in costs:
        return evolution.choose(knowledge, feasible, count, rng, options)
    loss = _Loss(knowledge, rng, options)
    front = _Front(knowledge, loss, _Prices(knowledge, rng), rng, options)
    genotypes, costs = [genotype for genotype, _ in feasible], np.array(costs)
    kept, mean = _best_recipes(knowledge, genotypes, costs, loss, front)
    genotypes, costs = [genotypes[position] for position in kept], costs[kept]
    unknown = knowledge.unknown_families(genotypes).values()
    strangers = [min(positions, key=lambda position: mean[position]) for positions in unknown][: count // 2]
    by_chance = not strangers and (count >= PER_CHANCE or rng.random() < count / PER_CHANCE)
    most = max(1, count - 1 - len(strangers) - by_chance)
    picked = _greedy(*loss.joint(genotypes, costs), costs, loss.chance(genotypes), front, most)
    picked += [position for position in strangers if position not in picked]
    left = sorted(_without(picked, len(genotypes)), key=lambda position: mean[position])
    picked += left[: max(0, count - by_chance - len(picked))]
    if len(picked) < count:
        picked.append(int(rng.choice(_without(picked, len(genotypes)))))
    return [genotypes[position] for position in picked]


def _best_recipes(
    knowledge: Knowledge, genotypes: Sequence[Genotype], costs: np.ndarray, loss: "_Loss", front: "_Front"
) -> tuple[list[int], np.ndarray]:
    """Positions: of genotypes that differ in the genes of training alone, the one of the largest expected improvement;
    with it, and not the predicted loss, other recipes are tried while little is known of them. And the predicted
    logarithms of their losses.

    Where there are many, networks that promise little with the first of their recipes are left with it: to predict
    all takes as many times as long as there are recipes.
    """
    value, mean = np.full(len(genotypes), -1.0), np.empty(len(genotypes))

    def predict(positions: list[int]) -> None:
        means, deviations = loss.predict([genotypes[position] for position in positions], costs[positions])
        improvement = front.improvement(means, deviations, costs[positions])
        value[positions], mean[positions] = _rounded(improvement), means.mean(0)

    recipes: dict[str, list[int]] = defaultdict(list)
    for position, genotype in enumerate(genotypes):
        recipes[architecture_id(genotype)].append(position)
    of_each = list(recipes.values())
    first = [positions[0] for positions in of_each]
    predict(first)
    promising = {int(position) for position in _best(value[first], REVISED)}
    unknown = knowledge.unknown_families([genotypes[position] for position in first]).values()
    promising.update(chain.from_iterable(unknown))
    if others := [position for each in sorted(promising) for position in of_each[each][1:]]:
        predict(others)
    kept = [max(positions, key=lambda position: value[position]) for positions in of_each]
    return kept, mean[kept]


def _without(picked: Sequence[int], total: int) -> list[int]:
    return [position for position in range(total) if position not in picked]


def _enough(knowledge: Knowledge, options: Mapping[str, Any]) -> bool:
    """Whether there is enough to learn from. Results of earlier runs teach as well."""
    any_good = any(knowledge.earlier) or any(result.feasible for result in knowledge.trained)
    return _known(knowledge) >= options["start"] and any_good


def _known(knowledge: Knowledge) -> int:
    """How many results there are to learn from."""
    return max(len(knowledge.trained), *map(len, knowledge.short), 0) + sum(map(len, knowledge.earlier))


def _promising(
    knowledge: Knowledge, count: int, rng: np.random.Generator, options: Mapping[str, Any]
) -> list[Genotype]:
    genotypes = _children(knowledge, rng, options)
    if not genotypes:
        return []
    prices = _Prices(knowledge, rng)
    costs, feasible = prices.predict(genotypes)
    loss = _Loss(knowledge, rng, options)
    chance = feasible * loss.chance(genotypes)
    front = _Front(knowledge, loss, prices, rng, options)
    alone = front.improvement(*loss.predict(genotypes, costs), costs) * chance
    short = _best(alone, SHORTLIST)
    lottery = round(LOTTERY_SHARE * count)
    explored = _explored(knowledge, genotypes, feasible, round(UNKNOWN_SHARE * count))
    joint = loss.joint([genotypes[position] for position in short], costs[short])
    picked = _greedy(*joint, costs[short], chance[short], front, count - lottery - len(explored))
    found = list(dict.fromkeys([*explored, *short[picked]]))
    rest = np.setdiff1d(np.arange(len(genotypes)), found)
    return [genotypes[position] for position in [*found, *rng.permutation(rest)[:lottery]]]


def _explored(knowledge: Knowledge, genotypes: Sequence[Genotype], feasible: np.ndarray, most: int) -> list[int]:
    """Positions of at most `most` genotypes of families that are still unknown, those that most probably meet the
    budgets, as many of each: where few networks of a family are fast enough, chance alone would hardly meet them."""
    unknown = knowledge.unknown_families(genotypes)
    found: list[int] = []
    for members in map(np.array, unknown.values()):
        found += members[_best(feasible[members], most // len(unknown))].tolist()
    return found


def _children(knowledge: Knowledge, rng: np.random.Generator, options: Mapping[str, Any]) -> list[Genotype]:
    """Different untrained genotypes: mutants and crossings of the best results, and random ones; strangers as
    evolution's; and what is known to meet the budgets because it was screened before. As long as there are few
    results, the best of earlier runs are among them, and among the parents."""
    space, feasible = knowledge.space, [result for result in knowledge.results if result.feasible]
    order = np.argsort(pareto.ranks([result.objectives for result in feasible]), kind="stable")
    parents = [feasible[position].genotype for position in order[:PARENTS]]
    front = len(pareto.front([result.objectives for result in feasible]))
    inherited: list[Genotype] = []
    if len(parents) < PARENTS:
        for run in knowledge.earlier:
            inherited += [genotype for genotype, _ in sorted(run, key=lambda each: each[1])[:PARENTS]]
    parents += inherited

    def parent() -> Genotype:
        among = front if front and rng.random() < 0.5 else len(parents)
        return parents[rng.integers(min(among, len(parents)))]

    recipes, known_families = _recipes(knowledge), knowledge.known_families

    def drawn(family: str | None = None) -> Genotype:
        child = evolution.drawn(space, known_families, rng, family)
        if rng.random() >= KNOWN_RECIPE_SHARE:
            return child
        return space.with_recipe(child, rng, recipes[rng.integers(len(recipes))])

    near_misses = knowledge.near_misses(evolution.NEAR_MISSES)
    known = set(knowledge.tried)
    measured = {candidate_id(entry.genes) for entry in knowledge.screened.values()}
    found: list[Genotype] = []
    for genotype in inherited:
        if (identity := candidate_id(genotype)) not in known:
            known.add(identity)
            found.append(genotype)
    enough = len(found) + options["children"]
    for _ in range(TRIES_PER_CHILD * options["children"]):
        if len(found) == enough:
            break
        if near_misses and rng.random() < evolution.STRANGERS_SHARE:
            child = evolution.stranger(knowledge, near_misses, rng)
        elif rng.random() < FRESH_SHARE:
            child = drawn()
        elif len(space.families) > 1 and rng.random() < RELATIVES_SHARE:
            child = drawn(parent()["architecture"]["family"])
        else:
            child = parent()
            crossed = rng.random() < CROSSOVER_SHARE
            if crossed:
                child = space.crossover(child, parent(), rng)
            # One step in most cases; a crossing is a step by itself.
            for _ in range(int(rng.geometric(0.7)) - crossed):
                child = space.mutate(child, rng)
        if (identity := candidate_id(child)) not in known and identity not in measured:
            known.add(identity)
            found.append(child)
    return found


def _recipes(knowledge: Knowledge) -> list[dict[str, Any]]:
    """The training genes of the best results, and the default ones."""
    best = sorted(knowledge.trained, key=lambda result: result.objectives[0])[:RECIPES]
    return [*(knowledge.space.recipe(result.genotype) for result in best), knowledge.space.default_recipe]


def _remembered(
    knowledge: Knowledge, besides: Sequence[Genotype], rng: np.random.Generator
) -> list[tuple[Genotype, Costs]]:
    """What was screened and is within the budgets, with the recipes of the best results and the default one, as far as
    it was not yet trained so. What a network costs does not depend on its recipe."""
    space, recipes = knowledge.space, _recipes(knowledge)
    known = knowledge.tried.union(map(candidate_id, besides))
    left = [entry for entry in knowledge.screened.values() if violation(entry.costs, knowledge.budgets) <= 0]
    found: dict[str, tuple[Genotype, Costs]] = {}
    for entry in left[-REMEMBERED:]:
        for recipe in recipes:
            genotype = space.with_recipe(entry.genes, rng, recipe)
            if (name := candidate_id(genotype)) not in known:
                found.setdefault(name, (genotype, entry.costs))
    return list(found.values())


class _Front:
    """The feasible results that nothing dominates, and the worst objectives that count.

    While there are fewer results than `loss_first`, no network costs anything: the front is the lowest loss. The worst
    loss that counts is a quantile (`reference`) of what the feasible networks of the space are predicted to
    have. The hypervolume's own reference lies so far out that fast networks of no use would make up most of it.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        loss: "_Loss",
        prices: "_Prices",
        rng: np.random.Generator,
        options: Mapping[str, Any],
    ) -> None:
        self.costs_count = _known(knowledge) >= options["loss_first"]
        feasible = np.array([result.objectives for result in knowledge.results if result.feasible])
        feasible = feasible.reshape(-1, 1 + len(knowledge.objectives))
        feasible[:, 1:] = self.counted(feasible[:, 1:])
        self.points = feasible[pareto.front(feasible)]
        anyone = [knowledge.space.sample(rng) for _ in range(SAMPLE)]
        costs, chance = prices.predict(anyone)
        mean, deviation = loss.predict(anyone, costs)
        losses = np.exp(mean + deviation * rng.standard_normal(len(anyone)))
        weights = np.broadcast_to(np.maximum(chance, 1e-9), losses.shape).ravel()
        worst = np.quantile(losses.ravel(), options["reference"], method="inverted_cdf", weights=weights)
        best = min((each[0] for each in feasible), default=0.0)
        self.reference = np.array([max(float(worst), best * (1 + 1e-6)), *knowledge.limits])

    def counted(self, costs: np.ndarray) -> np.ndarray:
        """Of the costs of networks within the budgets, what counts."""
        return costs if self.costs_count else np.zeros_like(costs)

    def improvement(
        self, mean: np.ndarray, deviation: np.ndarray, costs: np.ndarray, points: np.ndarray | None = None
    ) -> np.ndarray:
        """Expected improvement of `points`, or else the front's, as the mean over all draws of the process, [draws, m]
        each."""
        points, costs = self.points if points is None else points, self.counted(costs)
        return np.mean(
            [expected_improvement(*each, costs, points, self.reference) for each in zip(mean, deviation, strict=True)],
            axis=0,
        )


class _Prices:
    """What networks cost: as measured, or as predicted from what was measured."""

    def __init__(self, knowledge: Knowledge, rng: np.random.Generator) -> None:
        self._knowledge = knowledge
        self._encoding = Encoding(knowledge.space, training=False)
        known = list(knowledge.screened.values())[-MOST_COSTS:]
        rows = self._encoding.encode([entry.genes for entry in known])
        self._processes: dict[tuple[str, str], GaussianProcess] = {}
        self._accepted: GaussianProcess | None = None
        for device, figure in ((name, figure) for name, limits in knowledge.budgets.items() for figure in limits):
            figures = [(entry.costs.get(device) or {}).get(figure) for entry in known]
            given = [position for position, value in enumerate(figures) if value]
            if given:
                logarithms = np.log([figures[position] for position in given])
                process = GaussianProcess(self._encoding).fit(rows[given], logarithms, rng)
                self._processes[device, figure] = process
        refused = np.array([None in entry.costs.values() for entry in known], float)
        if refused.any():
            self._accepted = GaussianProcess(self._encoding).fit(rows, 1.0 - refused, rng)

    def predict(self, genotypes: Sequence[Genotype]) -> tuple[np.ndarray, np.ndarray]:
        """The costs that are objectives [n, costs], and how probably all budgets are met [n]."""
        knowledge, x = self._knowledge, self._encoding.encode(genotypes)
        costs, feasible = np.array([knowledge.limits] * len(genotypes), float), np.ones(len(genotypes))
        expected: dict[str, dict[str, np.ndarray]] = {device: {} for device in knowledge.budgets}
        if self._accepted is not None:
            feasible *= np.clip(self._accepted.predict(x)[0].mean(0), LEAST_CHANCE, 1.0)
        for (device, figure), process in self._processes.items():
            mean, deviation = process.predict(x)
            feasible *= ndtr((np.log(knowledge.budgets[device][figure]) - mean) / deviation).mean(0)
            expected[device][figure] = np.exp(mean.mean(0))
        for position, column in enumerate(self._columns(expected)):
            if column is not None:
                costs[:, position] = column
        for position, genotype in enumerate(genotypes):
            if known := knowledge.screened.get(architecture_id(genotype)):
                feasible[position] = violation(known.costs, knowledge.budgets) <= 0
                if measured := knowledge.objective_costs(known.costs):
                    costs[position] = measured
        return costs, feasible

    def _columns(self, expected: Mapping[str, Mapping[str, np.ndarray]]) -> list[np.ndarray | None]:
        """Each objective's expected costs [n], None where nothing is known of them yet."""
        knowledge = self._knowledge
        if knowledge.device != WORST:
            return [expected[knowledge.device].get(figure) for figure in knowledge.objectives]
        columns = []
        for figure in knowledge.objectives:
            shares = [
                found[figure] / knowledge.budgets[device][figure]
                for device, found in expected.items()
                if figure in found
            ]
            columns.append(np.max(shares, axis=0) if shares else None)
        return columns


class _Loss:
    """The logarithm of the loss of untrained networks, predicted from all results.

    Earlier runs and short trainings, whose losses may be on another scale, make up what is expected before anything is
    known, and the results of this run correct it: each process has learned what those before it left unexplained
    (stacked processes, as in Golovin et al. 2017, "Google Vizier").
    """

    def __init__(self, knowledge: Knowledge, rng: np.random.Generator, options: Mapping[str, Any]) -> None:
        self._genes = Encoding(knowledge.space)
        self._encoding = Encoding(knowledge.space, further=len(knowledge.objectives))
        self._prior: list[GaussianProcess] = []
        for run in [*knowledge.earlier, *knowledge.short]:
            genotypes, losses = zip(*run[-MOST:], strict=True)
            rows = self._genes.encode(genotypes)
            unexplained = np.log(losses) - self._expected(rows, self._prior)
            self._prior.append(GaussianProcess(self._genes).fit(rows, _clipped(unexplained, len(run)), rng))
        good = knowledge.trained[-MOST:]
        genotypes = [result.genotype for result in good]
        objectives = np.array([result.objectives for result in good]).reshape(-1, 1 + len(knowledge.objectives))
        rows = self._genes.encode(genotypes)
        unexplained = np.log(objectives[:, 0]) - self._expected(rows, self._prior) if good else np.zeros(0)
        self._level, self._process = 0.0, None
        if len(good) >= LEAST or not self._prior:
            costs = np.log(objectives[:, 1:])
            self._scale = costs.min(0), np.maximum(np.ptp(costs, axis=0), 1e-9)
            self._process = GaussianProcess(self._encoding)
            clipped = _clipped(unexplained, options["start"])
            self._process.fit(self._points(rows, objectives[:, 1:]), clipped, rng)
        elif good:
            self._level = float(np.mean(unexplained))
        failed = np.array([result.objectives is None for result in knowledge.results], float)[-MOST:]
        self._trainable: GaussianProcess | None = None
        if failed.any():
            rows = self._genes.encode([result.genotype for result in knowledge.results[-MOST:]])
            self._trainable = GaussianProcess(self._genes).fit(rows, 1.0 - failed, rng)

    def predict(self, genotypes: Sequence[Genotype], costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations, [draws, n] each. costs: [n, costs]; they tell something about the network."""
        process, points, expected = self._question(genotypes, costs)
        mean, deviation = process.predict(points)
        return expected + mean, deviation

    def joint(self, genotypes: Sequence[Genotype], costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means [draws, n] and covariances [draws, n, n]."""
        process, points, expected = self._question(genotypes, costs)
        mean, covariance = process.joint(points)
        return expected + mean, covariance

    def _question(
        self, genotypes: Sequence[Genotype], costs: np.ndarray
    ) -> tuple[GaussianProcess, np.ndarray, np.ndarray]:
        """The last process, its points, and what those before it expect there, [n]."""
        rows = self._genes.encode(genotypes)
        if self._process is None:
            return self._prior[-1], rows, self._level + self._expected(rows, self._prior[:-1])
        return self._process, self._points(rows, costs), self._expected(rows, self._prior)

    def chance(self, genotypes: Sequence[Genotype]) -> np.ndarray:
        """How probably the training of each ends with a result: [n]."""
        if self._trainable is None:
            return np.ones(len(genotypes))
        return np.clip(self._trainable.predict(self._genes.encode(genotypes))[0].mean(0), LEAST_CHANCE, 1.0)

    def _expected(self, rows: np.ndarray, processes: Sequence[GaussianProcess]) -> np.ndarray:
        return sum((process.predict(rows)[0].mean(0) for process in processes), np.zeros(len(rows)))

    def _points(self, rows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        low, span = self._scale
        return np.column_stack([rows, (np.log(costs) - low) / span])


def _clipped(losses: np.ndarray, first: int) -> np.ndarray:
    """`losses`, none above a quantile of the first ones, which were not chosen for their loss."""
    return np.minimum(losses, np.quantile(losses[:first], CLIP))


def _greedy(
    mean: np.ndarray, covariance: np.ndarray, costs: np.ndarray, chance: np.ndarray, front: _Front, count: int
) -> list[int]:
    """Positions of `count` points (fewer where there are fewer), one after the other. `covariance` is used up."""
    points, picked = front.points, []
    for _ in range(min(count, len(costs))):
        variance = np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-10)
        value = front.improvement(mean, np.sqrt(variance), costs, points) * chance
        value[picked] = -1.0
        position = int(_best(value, 1)[0])
        picked.append(position)
        # It turns out as predicted: means stay, and what is like it is known better.
        believed = np.array([[np.exp(mean[:, position].mean()), *front.counted(costs[position])]])
        points = np.vstack([points, believed])
        points = points[pareto.front(points)]
        column = covariance[:, :, position]
        covariance -= column[:, :, None] * column[:, None, :] / (variance[:, position] * (1 + 1e-6))[:, None, None]
    return picked


def _best(value: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` largest values."""
    return np.argsort(-_rounded(value), kind="stable")[:count]


def _rounded(value: np.ndarray) -> np.ndarray:
    """To nine digits, so that another machine's last bits decide nothing."""
    return np.array([float(f"{each:.9g}") for each in value])
