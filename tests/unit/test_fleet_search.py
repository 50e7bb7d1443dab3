"""A search on several devices: whose figures are objectives, whose budgets count, and what a device cannot tell."""

import json

import numpy as np
import pytest
from test_search import SIZE, genes, latency_ms, rmse
from test_search import space as space  # a fixture

from edgeloop import devices
from edgeloop.records import architecture_id, candidate_id, ok
from edgeloop.search import costs, decide, gp_ehvi, state
from edgeloop.search.results import knowledge

BUDGETS = {"near": {"latency_ms": 0.5}, "far": {"latency_ms": 2.0, "energy_mj_per_inference": 8.0}}
OBJECTIVES = ["latency_ms", "energy_mj_per_inference"]


def figures(genotype, device):
    """The far device is slow where a network has many channels; the near one where its pictures are large."""
    width = genotype["architecture"]["widths"][0]
    if device == "near":
        return {"latency_ms": latency_ms(genotype), "energy_mj_per_inference": None}
    return {"latency_ms": 0.05 * width, "energy_mj_per_inference": 0.4 * width}


def screening(proposals):
    return [
        ok(device=device, architectures={architecture_id(g): ok(**figures(g, device)) for g in proposals}, work=[0, 1])
        for device in BUDGETS
    ]


def search(space, generations, **about):
    current, history = state.empty(), []
    for generation in range(generations):
        settings = {"name": "gp-ehvi", "options": {"start": 8, "children": 300}, "seed": 1, "generation": generation}
        proposals = decide.propose(knowledge(space, current, **about), count=16, **settings)
        after = state.with_screening(current, screening(proposals), genes(proposals))
        chosen = decide.choose(knowledge(space, after, **about), proposals, count=SIZE, screening=True, **settings)
        names = [candidate_id(genotype) for genotype in chosen]
        history.append(names)
        current = state.advance(
            current,
            population={
                "generation": generation, "parent": current["lineage"], "candidates": names, "genotypes": chosen,
            },
            screening=screening(proposals),
            genes=genes(proposals),
            train={candidate_id(g): ok(val_rmse=rmse(g)) for g in chosen},
            export={name: ok() for name in names},
            measured={name: {candidate_id(g): ok(**figures(g, name)) for g in chosen} for name in BUDGETS},
            reference_rmse=0.5,
            patience=9,
            **about,
        )  # fmt: skip
    return current, history


def test_the_worst_share_of_any_device_can_be_the_objective(space):
    about = {"budgets": BUDGETS, "objectives": OBJECTIVES, "device": costs.WORST}
    current, history = search(space, 3, **about)
    assert current["objectives"] == ["val_rmse", "worst_latency_share", "worst_energy_share"]
    assert current["reference"][1:] == [1.0, 1.0]
    for entry in current["candidates"].values():
        genotype = entry["genotype"]
        shares = latency_ms(genotype) / 0.5, 0.05 * genotype["architecture"]["widths"][0] / 2.0
        assert entry["objectives"][1] == pytest.approx(max(shares))
        assert entry["objectives"][2] == pytest.approx(0.4 * genotype["architecture"]["widths"][0] / 8.0)
        assert entry["feasible"]  # on both: what is over one device's budget is never trained
    assert current["hypervolume"][-1] > current["hypervolume"][0] > 0
    assert search(space, 3, **about)[1] == history


def test_a_named_device_gives_the_objectives_and_all_devices_limit_the_search(space):
    current, _ = search(space, 2, budgets=BUDGETS, objectives=["latency_ms"], device="far")
    assert current["objectives"] == ["val_rmse", "latency_ms"] and current["reference"][1] == 2.0
    for entry in current["candidates"].values():
        assert entry["objectives"][1] == entry["devices"]["far"]["latency_ms"]
        assert entry["devices"]["near"]["latency_ms"] <= 0.5


def test_costs_are_predicted_as_the_worst_share(space):
    rng = np.random.default_rng(0)
    known, unknown = ([space.sample(rng) for _ in range(count)] for count in (60, 40))
    after = state.with_screening(state.empty(), screening(known), genes(known))
    about = {"budgets": BUDGETS, "objectives": ["latency_ms"], "device": costs.WORST}
    predicted, _ = gp_ehvi._Prices(knowledge(space, after, **about), rng).predict(unknown)
    true = [
        max(figures(g, device)["latency_ms"] / limits["latency_ms"] for device, limits in BUDGETS.items())
        for g in unknown
    ]
    assert np.median(np.abs(np.log(predicted[:, 0] / true))) < 0.3


CONFIG = {
    "devices": {"near": {"budget_ms": 0.5}, "far": {"budget_ms": 2.0, "budget_energy_mj": 8.0}},
    "search": {"feasible_on": None, "objective_device": None},
}


def test_budgets_are_those_of_the_devices_that_count():
    assert costs.budgets(CONFIG) == BUDGETS
    assert costs.objective_device(CONFIG) == "near"
    some = {**CONFIG, "search": {"feasible_on": ["far"], "objective_device": None}}
    assert list(costs.budgets(some)) == ["far"] and costs.objective_device(some) == "far"


def test_a_budget_of_energy_needs_a_device_that_tells_it(tmp_path):
    devices.check_enrolment("near", CONFIG["devices"]["near"], {"energy_source": None})
    devices.check_enrolment("far", CONFIG["devices"]["far"], {"energy_source": "rapl"})
    for name, source in (("near", None), ("far", None)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"energy_source": source}))
    with pytest.raises(devices.DeviceCannotTell, match=r"'far' has 'budget_energy_mj'.*Remove the budget.*far\.json"):
        devices.check_enrolled(CONFIG["devices"], tmp_path)


def test_what_a_device_is_owed_is_told_by_device(tmp_path):
    generation, candidate = tmp_path / "generations/000", tmp_path / "candidates/0123456789ab"
    for folder in (generation, candidate, tmp_path / "devices"):
        folder.mkdir(parents=True)
    for device in ("near", "away"):
        (tmp_path / f"devices/{device}.json").write_text("{}")
    (generation / "proposals.json").write_text(json.dumps({"to_screen": {"a": {}}}))
    for file in (generation / "screening.near.json", candidate / "measure.near.json", candidate / "model.onnx"):
        file.write_text("{}")
    assert devices.owed(tmp_path, ["near", "away", "new"], ["near", "away"]) == [
        "device 'away' is still owed: the screening of generation 000, the measurement of 1 networks (0123456789ab)",
        "device 'new' is still owed: its enrolment, the measurement of 1 networks (0123456789ab)",
    ]
