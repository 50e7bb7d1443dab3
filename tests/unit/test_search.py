"""Decisions of a search: deterministic, never twice the same candidate, within budget; and the states they lead to."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from edgeloop import config
from edgeloop.records import architecture_id, candidate_id, failed, ok
from edgeloop.search import decide, identity, pareto, state
from edgeloop.search.registry import STRATEGIES
from edgeloop.search.results import knowledge

ROOT = Path(__file__).parents[2]
BUDGETS = {"bench": {"latency_ms": 0.5}}
SIZE = 6


SPACE = """
name: made-up
training: {lr: {log_uniform: [1.0e-3, 1.0e-1]}}
families:
  conv2d:
    widths: [[4], [8], [12], [16], [24], [32], [48]]
    frames: [1, 2, 4, 6, 8, 12, 16]
    pixels: [17, 21, 25, 29, 33, 37, 41]
    kernel: [1, 3, 5, 7]
    stem_stride: [1, 2, 3, 4]
    activation: [relu, leaky_relu, hard_swish, silu]
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(SPACE)
    return config.load_space(file)


def latency_ms(genotype):
    """A made-up device: it does so many multiplications per second; about half of the space exceeds the budget."""
    architecture = genotype["architecture"]
    area = (architecture["pixels"] / architecture["stem_stride"]) ** 2
    return 1e-6 * architecture["widths"][0] * architecture["frames"] * area * architecture["kernel"] ** 2


def rmse(genotype):
    """A made-up trainer: every gene matters, and nearly by itself."""
    architecture = genotype["architecture"]
    return (
        0.4
        - 0.02 * np.log2(architecture["widths"][0])
        - 0.02 * np.log2(architecture["frames"])
        - 0.001 * architecture["pixels"]
        + 0.02 * abs(architecture["kernel"] - 5)
        + 0.02 * abs(architecture["stem_stride"] - 2)
        - 0.03 * (architecture["activation"] == "silu")
        + 0.05 * abs(np.log10(genotype["training"]["lr"] / 0.01))
    )


def known(space, current, budgets=BUDGETS, earlier=()):
    return knowledge(space, current, budgets=budgets, objectives=["latency_ms"], earlier=earlier)


def propose(space, previous, name="evolution", seed=1, count=2 * SIZE, **more):
    generation = previous["generation"] + 1
    return decide.propose(
        known(space, previous, **more), name=name, options={}, seed=seed, generation=generation, count=count
    )


def genes(proposals):
    return {architecture_id(g): {"architecture": g["architecture"], "precision": g["precision"]} for g in proposals}


def screen(proposals):
    figures = {architecture_id(genotype): ok(latency_ms=latency_ms(genotype)) for genotype in proposals}
    return [ok(device="bench", architectures=figures, work=[0, 1])]


def choose(space, previous, proposals, screening, name="evolution", seed=1, count=SIZE, options=None, **more):
    return decide.choose(
        known(space, state.with_screening(previous, screening, genes(proposals)), **more),
        proposals,
        name=name,
        options=options or {},
        seed=seed,
        generation=previous["generation"] + 1,
        count=count,
        screening=bool(screening),
    )


def population(previous, chosen):
    names = [candidate_id(genotype) for genotype in chosen]
    return {
        "generation": previous["generation"] + 1,
        "parent": previous["lineage"],
        "candidates": names,
        "genotypes": chosen,
    }


def advance(previous, chosen, screening=(), proposals=(), patience=3, broken=(), budgets=BUDGETS, loss=rmse):
    train = {
        candidate_id(g): failed("NaN") if candidate_id(g) in broken else ok(val_rmse=loss(g), parameters=1, macs=1)
        for g in chosen
    }
    measured = {candidate_id(g): ok(latency_ms=latency_ms(g), ratio=1.0) for g in chosen}
    return state.advance(
        previous,
        population=population(previous, chosen),
        screening=screening,
        genes=genes(proposals),
        train=train,
        export={name: ok() for name in train},
        measured={"bench": measured},
        budgets=budgets,
        objectives=["latency_ms"],
        reference_rmse=0.5,
        patience=patience,
    )


def advance_halved(previous, chosen, going_on, screening, proposals, broken=()):
    """A generation of which only `going_on` were trained in full; a short training ends with a tenth more."""
    short = {
        candidate_id(g): failed("NaN")
        if candidate_id(g) in broken
        else ok(val_rmse=1.1 * rmse(g), parameters=1, macs=1)
        for g in chosen
    }
    train = {candidate_id(g): ok(val_rmse=rmse(g), parameters=1, macs=1) for g in going_on}
    return state.advance(
        previous,
        population=population(previous, chosen),
        screening=screening,
        genes=genes(proposals),
        short={2: short},
        train=train,
        export={name: ok() for name in train},
        measured={"bench": {candidate_id(g): ok(latency_ms=latency_ms(g), ratio=1.0) for g in going_on}},
        budgets=BUDGETS,
        objectives=["latency_ms"],
        reference_rmse=0.5,
        patience=3,
    )


def search(space, generations, pool=2 * SIZE, **settings):
    """The whole loop, with the made-up device and trainer."""
    current, history = state.empty(), []
    for _ in range(generations):
        proposals = propose(space, current, count=pool, **settings)
        screening = screen(proposals)
        chosen = choose(space, current, proposals, screening, **settings)
        history.append([candidate_id(genotype) for genotype in chosen])
        current = advance(current, chosen, screening, proposals)
    return current, history


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_gives_the_same_search_and_another_seed_another(space, name):
    first, again, other = (search(space, 4, name=name, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again
    assert not set(first[0]) & set(other[0])


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_order_of_the_records_plays_no_part(space, name):
    current, _ = search(space, 3, name=name)
    entries = list(current["candidates"].items())
    random.Random(0).shuffle(entries)
    assert propose(space, {**current, "candidates": dict(entries)}, name) == propose(space, current, name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_is_trained_twice_and_nothing_known_to_be_too_slow_is_trained(space, name):
    current, history = search(space, 5, name=name)
    trained = [candidate for generation in history for candidate in generation]
    assert len(trained) == len(set(trained)) > 4 * SIZE
    assert all(entry["feasible"] for entry in current["candidates"].values())
    budget = BUDGETS["bench"]["latency_ms"]
    assert any(entry["costs"]["bench"]["latency_ms"] > budget for entry in current["screened"].values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_was_left_out_early_is_no_result_and_is_never_tried_again(space, name):
    current, tried = state.empty(), []
    for _ in range(6):
        proposals = propose(space, current, name)
        screening = screen(proposals)
        chosen = choose(space, current, proposals, screening, name)
        tried += map(candidate_id, chosen)
        current = advance_halved(current, chosen, chosen[: SIZE // 2], screening, proposals)
    assert len(tried) == len(set(tried)) == len(current["candidates"])
    left_out = [entry for entry in current["candidates"].values() if entry["status"] == "dropped"]
    assert len(left_out) >= 6 * (SIZE // 2 - 1)
    assert {entry["reason"] for entry in left_out} == {"left out after 2 epochs: others were better by then"}
    assert not any(entry["feasible"] or entry["val_rmse"] for entry in left_out)
    knowledge = known(space, current)
    assert len(knowledge.results) == len(tried) - len(left_out)
    assert [len(losses) for losses in knowledge.short] == [len(tried)]
    genotype, loss = knowledge.short[0][0]
    assert loss == pytest.approx(1.1 * rmse(genotype))


def test_a_short_training_that_fails_is_a_failed_candidate_and_not_one_left_out(space):
    proposals = propose(space, state.empty())
    screening = screen(proposals)
    chosen = choose(space, state.empty(), proposals, screening)
    broken = candidate_id(chosen[-1])
    current = advance_halved(state.empty(), chosen, chosen[:1], screening, proposals, broken=[broken])
    assert current["candidates"][broken]["status"] == "failed"
    assert current["candidates"][broken]["reason"] == "NaN"
    assert [result.objectives for result in known(space, current).results if result.candidate == broken] == [None]


def test_who_went_on_is_part_of_a_history(space):
    proposals = propose(space, state.empty())
    screening = screen(proposals)
    chosen = choose(space, state.empty(), proposals, screening)
    first, other = (
        advance_halved(state.empty(), chosen, going_on, screening, proposals) for going_on in (chosen[:2], chosen[1:3])
    )
    assert first["lineage"] != other["lineage"]


def test_evolution_finds_more_than_random_search_where_neighbours_are_alike(space):
    found = {
        name: np.mean([search(space, 12, name=name, seed=seed)[0]["hypervolume"][-1] for seed in range(5)])
        for name in STRATEGIES
    }
    assert found["evolution"] > found["random"]


def test_a_small_space_is_exhausted_without_repeating_anything(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("name: tiny\ntraining: {lr: 0.01}\nfamilies: {conv2d: {widths: [[8], [16]], frames: [4, 8]}}\n")
    proposals = propose(config.load_space(file), state.empty(), name="random", count=50)
    assert len(proposals) == len({candidate_id(genotype) for genotype in proposals}) == 4


def test_a_budget_that_nothing_meets_is_an_error_that_names_the_closest(space):
    proposals = propose(space, state.empty())
    closest = min(map(latency_ms, proposals))
    with pytest.raises(decide.NothingFeasible, match=f"the closest one takes {closest:.4g} ms on bench"):
        choose(space, state.empty(), proposals, screen(proposals), budgets={"bench": {"latency_ms": 1e-6}})


def test_without_screening_every_proposal_may_be_trained(space):
    proposals = propose(space, state.empty(), count=SIZE)
    assert choose(space, state.empty(), proposals, screening=()) == proposals


def test_a_failed_candidate_is_recorded_and_the_search_goes_on(space):
    chosen = propose(space, state.empty(), count=4)
    broken = candidate_id(chosen[0])
    after = advance(state.empty(), chosen, broken=[broken])
    assert after["candidates"][broken]["status"] == "failed"
    assert after["candidates"][broken]["reason"] == "NaN"
    assert broken not in after["front"]
    assert len(propose(space, after)) == 2 * SIZE


def test_all_failed_leaves_an_empty_front_and_a_search_that_goes_on(space):
    chosen = propose(space, state.empty(), count=4)
    after = advance(state.empty(), chosen, broken=[candidate_id(genotype) for genotype in chosen])
    assert after["front"] == [] and after["hypervolume"] == [0.0]
    assert len(propose(space, after)) == 2 * SIZE


def test_a_candidate_over_budget_is_never_on_the_front(space):
    chosen = propose(space, state.empty(), count=20)
    after = advance(state.empty(), chosen)
    slow = {candidate_id(genotype) for genotype in chosen if latency_ms(genotype) > BUDGETS["bench"]["latency_ms"]}
    assert slow and not slow & set(after["front"])


def test_a_larger_budget_admits_more_without_training_anything(space):
    chosen = propose(space, state.empty(), count=20)
    narrow, wide = (
        advance(state.empty(), chosen, budgets={"bench": {"latency_ms": budget}}) for budget in (0.1, 100.0)
    )
    admitted = [sum(entry["feasible"] for entry in after["candidates"].values()) for after in (narrow, wide)]
    assert admitted[0] < admitted[1] == 20


def test_the_search_stops_when_the_hypervolume_has_not_grown_for_patience_generations(space):
    current = advance(state.empty(), propose(space, state.empty(), count=4), patience=2)
    for stop in (False, True):
        current = advance(current, [], patience=2)
        assert current["stop"] is stop
    assert current["reason"] == "the hypervolume has not grown for 2 generations"


def test_a_generation_of_another_history_is_refused(space):
    chosen = propose(space, state.empty(), count=2)
    first = advance(state.empty(), chosen)
    other = advance(state.empty(), propose(space, state.empty(), seed=2, count=2))
    later = population(first, propose(space, first, count=2))
    with pytest.raises(state.HistoryError, match="generation 001 was decided from another history"):
        state.advance(
            other, population=later, screening=[], genes={}, train={}, export={}, measured={"bench": {}},
            budgets=BUDGETS, objectives=["latency_ms"], reference_rmse=0.5, patience=3,
        )  # fmt: skip


def test_a_folder_that_holds_another_search_is_refused_and_the_difference_named(tmp_path):
    settings = {"search": {"strategy": "evolution", "seed": 1}}
    space_file = ROOT / "config/spaces/demo.yaml"
    (tmp_path / "000").mkdir()
    (tmp_path / "000/proposals.json").write_text(json.dumps({"search": identity.identity(settings, space_file)}))
    identity.check(tmp_path, settings, space_file)
    with pytest.raises(identity.OtherSearch, match="seed: 1 then, 2 now"):
        identity.check(tmp_path, {"search": {"strategy": "evolution", "seed": 2}}, space_file)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1, 1)], [0]),
        ([(1, 2), (2, 1), (2, 2)], [0, 1]),
        ([(1, 1), (1, 1)], [0]),
        ([(1, 2), (1, 3)], [0]),
    ],
)
def test_the_front_holds_what_nothing_dominates_and_equal_points_once(points, expected):
    assert pareto.front(points) == expected


def test_hypervolume_is_the_area_up_to_the_reference_and_counts_nothing_beyond():
    assert pareto.hypervolume([(1, 2), (2, 1)], (3, 3)) == pytest.approx(3)
    assert pareto.hypervolume([(1, 2), (2, 1), (0, 4)], (3, 3)) == pytest.approx(3)
    assert pareto.hypervolume([(3, 1)], (3, 3)) == 0


def test_crowding_is_infinite_at_the_ends_and_small_where_points_are_close():
    ends_first, close, apart, ends_last = pareto.crowding([(0, 10), (1, 9), (5, 5), (10, 0)])
    assert np.isinf(ends_first) and np.isinf(ends_last)
    assert close < apart
