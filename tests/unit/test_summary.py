"""The figures that a user is shown: fair, complete, and never made up."""

import json

import pytest
from bundles import training

from edgeloop import summary

BEST, FAST, SLOW, BROKEN, HAND, TIMED = (digit * 12 for digit in "abcdef")
NAMES = {HAND: "by-hand", TIMED: "latency-only"}


def genotype(family="conv2d"):
    return {"architecture": {"family": family}, "precision": "fp32", "training": {"lr": 0.01}}


def trained(rmse, work):
    figures = {"val_rmse": rmse, "val_rmse_speed_mm_s": 900 * rmse, "val_rmse_power_w": 215 * rmse}
    return {"status": "ok", "parameters": 1000, "macs": 2_000_000, **figures, "work": work}


def timed(latency_ms, work):
    figures = {"latency_ms": latency_ms, "latency_p50_ms": latency_ms, "latency_p99_ms": 2 * latency_ms}
    return {"status": "ok", **figures, "rmse": 0.2, "rmse_pytorch": 0.2, "peak_memory_mb": 1.5, "work": work}


def judged(rmse, latency_ms, feasible=True):
    status = "failed" if rmse is None else "ok"
    objectives = None if rmse is None else [rmse, latency_ms]
    return {"genotype": genotype(), "status": status, "objectives": objectives, "feasible": feasible}


@pytest.fixture
def run():
    """A search of two generations from second 100 to second 140; the device is busy or training goes on for 26 s."""
    return {
        "state": {
            "generation": 1,
            "candidates": {
                BEST: judged(0.1, 0.2),
                FAST: judged(0.2, 0.05),
                SLOW: judged(0.05, 9.0, feasible=False),
                BROKEN: judged(None, None, feasible=False),
            },
            "front": [BEST, FAST],
            "hypervolume": [0.3, 0.4],
            "budgets": {"bench": {"latency_ms": 0.5}},
            "stop": False,
        },
        "decisions": [
            {"proposals": {"decided_at": 100.0}, "population": {"proposed": 8}},
            {"proposals": {"decided_at": 120.0}, "population": {"proposed": 6}},
        ],
        "screening": [
            {"architectures": {"1": {}, "2": {}, "3": {}}, "work": [102.0, 104.0]},
            {"architectures": {"4": {}}, "work": [121.0, 122.0]},
        ],
        "short": [],
        "train": {
            BEST: trained(0.1, [104.0, 112.0]),
            FAST: trained(0.2, [105.0, 111.0]),  # beside the first one
            SLOW: trained(0.05, [122.0, 132.0]),
            BROKEN: {"status": "failed", "reason": "diverged", "work": [123.0, 125.0]},
            HAND: trained(0.3, [10.0, 20.0]),  # before the search
            TIMED: {"status": "ok", "parameters": 28_000_000, "macs": 10**10, "work": [1.0, 2.0]},
        },
        "export": {name: {"work": [112.0, 113.0]} for name in (BEST, FAST, BROKEN, HAND, TIMED)}
        | {SLOW: {"work": [50.0, 51.0]}},  # kept from an earlier search
        "measured": {
            "bench": {
                BEST: timed(0.2, [113.0, 114.0]),
                FAST: timed(0.05, [114.0, 115.0]),
                SLOW: timed(9.0, [138.0, 140.0]),
                BROKEN: {"status": "failed", "reason": "diverged", "work": [139.0, 139.0]},
                HAND: timed(1.0, [20.0, 21.0]),
                TIMED: timed(50.0, [2.0, 3.0]),
            }
        },
        # In the common session everything took half as long: only what is of one session may be divided.
        "comparisons": {
            "bench": {"candidates": {BEST: {"ratio": 0.5}, FAST: {"ratio": 0.125}, HAND: {"ratio": 2.0}, TIMED: {}}}
        },
        "enrolments": {"bench": {"fingerprint": {"arch": "x86_64"}}},
        "cache": {"source": "simulate", "splits": {s: {"clips": 5} for s in ("train", "validation", "test")}},
        "predictors": {"mean": trained(0.34, None), "ridge": trained(0.15, None)},
        "baselines": NAMES,
        "genotypes": {HAND: genotype("conv3d"), TIMED: genotype("swin3d")},
        "search": {"strategy": "evolution", "seed": 1, "max_generations": 2},
        "finals": {BEST: {1: training(0.1, 0.2), 2: training(0.1, 0.4)}, HAND: {1: training(0.3, 0.6)}},
    }


def test_the_best_is_the_first_of_the_front_and_a_network_over_budget_is_not_in_it(run):
    found = summary.build(**run)
    assert found["best"] == found["front"][0]
    assert [entry["candidate"] for entry in found["front"]] == [BEST, FAST]
    assert found["best"]["val_rmse"] == 0.1 and found["best"]["family"] == "conv2d"
    assert found["best"]["device"]["bench"]["latency_p99_ms"] == 0.4


def test_a_network_in_int8_has_the_quality_of_its_file_also_as_a_finalist(run):
    run["export"][BEST] |= {"val_rmse": 0.12, "val_rmse_speed_mm_s": 108.0, "val_rmse_power_w": 26.0}
    run["finals"][BEST][2]["export"] |= {"val_rmse": 0.3}
    best = summary.build(**run)["best"]
    assert (best["val_rmse"], best["val_rmse_speed_mm_s"], best["val_rmse_power_w"]) == (0.12, 108.0, 26.0)
    assert best["against"]["by-hand"]["quality_gain"] == pytest.approx(0.3 / 0.12)
    assert best["finalist"]["val_rmse"]["values"] == [0.1, 0.3]


def test_speedup_is_of_one_session_and_quality_gain_of_one_split(run):
    against = summary.build(**run)["front"][1]["against"]["by-hand"]
    assert against["speedup"] == {"bench": 16.0}
    assert against["quality_gain"] == pytest.approx(1.5)


def test_what_was_not_trained_or_not_measured_is_null(run):
    found = summary.build(**run)
    baseline = found["baselines"]["latency-only"]
    assert baseline["val_rmse"] is None and baseline["test_rmse"] is None
    assert found["best"]["against"]["latency-only"] == {
        "speedup": {"bench": None},
        "quality_gain": None,
        "test_quality_gain": None,
    }


def test_the_test_error_is_the_mean_over_the_seeds_and_compares_with_a_baseline_that_was_tested(run):
    found = summary.build(**run)
    assert found["best"]["test_rmse"] == pytest.approx(0.3) and found["front"][1]["test_rmse"] is None
    assert found["best"]["against"]["by-hand"]["test_quality_gain"] == pytest.approx(2.0)
    assert found["front"][1]["against"]["by-hand"]["test_quality_gain"] is None
    table = summary.table(found)
    assert "0.3000 ± 0.1414" in table and "RMSE 3.00x lower; test RMSE 2.00x lower" in table
    (hand,) = (line for line in table.splitlines() if line.startswith("by-hand"))
    assert " 0.6000 " in hand and "±" not in hand


def test_the_account_of_the_search_adds_up(run):
    account = summary.build(**run)["search"]
    counts = {key: account[key] for key in ("generations", "proposed", "screened", "trained", "failed")}
    assert counts == {"generations": 2, "proposed": 14, "screened": 4, "trained": 4, "failed": 1}
    assert account["trained_infeasible"] == 1
    assert account["training_s"] == 8 + 6 + 10 + 2 and account["device_s"] == 2 + 1 + 1 + 1 + 2


def test_overhead_is_the_time_in_which_nothing_of_the_search_was_under_way(run):
    account = summary.build(**run)["search"]
    # Busy: 102 to 115, 121 to 132 and 138 to 140, at times with several jobs at once.
    assert account["wall_s"] == 40 and account["overhead_s"] == 40 - 26


@pytest.mark.parametrize(
    ("stop", "max_generations", "stopped"),
    [(True, 2, "patience"), (False, 2, "max_generations"), (False, 5, "no_more_proposals")],
)
def test_why_the_search_ended_is_told(run, stop, max_generations, stopped):
    run["state"]["stop"], run["search"]["max_generations"] = stop, max_generations
    assert summary.build(**run)["search"]["stopped"] == stopped


def test_a_search_that_found_nothing_has_no_best(run):
    run["state"]["front"] = []
    found = summary.build(**run)
    assert found["best"] is None and found["front"] == []
    assert "No trained candidate meets the budgets." in summary.table(found)


def test_a_network_that_met_its_budget_in_the_search_alone_is_named(run):
    assert "budget of" not in summary.table(summary.build(**run))
    run["comparisons"]["bench"]["candidates"][BEST]["latency_ms"] = 0.5068
    table = summary.table(summary.build(**run))
    assert f"{BEST} met the budget of 0.5 ms on bench in the search, but its latency_ms is 0.5068 in" in table
    assert f"{FAST} met" not in table
    run["state"]["budgets"] = {}  # a device without a budget
    assert "budget of" not in summary.table(summary.build(**run))


def test_the_summary_is_json_and_the_table_reads_the_same_from_it(run):
    found = summary.build(**run)
    assert summary.table(json.loads(json.dumps(found, allow_nan=False))) == summary.table(found)


def test_the_table_has_a_line_for_each_network_and_the_verdict_on_the_best(run):
    table = summary.table(summary.build(**run))
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert {"predict by mean", "predict by ridge", "by-hand", "latency-only", f"{BEST} (best)", FAST} <= set(lines)
    assert "28,000,000" in lines["latency-only"] and " - " in lines["latency-only"]
    assert "best against by-hand: 4.00x faster on bench; RMSE 3.00x lower" in table
    assert "best against latency-only: its quality is unknown, it was measured for latency only" in table
    assert "best against predicting by ridge: RMSE 1.50x lower" in table
    assert "14 proposed, 4 screened, 4 trained, 1 failed, 1 trained over budget" in table
    assert "hypervolume by generation: 0.3000, 0.4000" in table


def test_a_best_that_is_worse_than_a_simple_predictor_is_called_so(run):
    run["predictors"]["ridge"]["val_rmse"] = 0.05
    assert "best against predicting by ridge: RMSE 2.00x higher" in summary.table(summary.build(**run))


def test_the_latencies_shown_together_are_those_of_the_session_that_compared_them(run):
    before = summary.build(**run)["best"]["device"]["bench"]
    run["comparisons"]["bench"]["candidates"][BEST]["latency_p50_ms"] = 0.123
    after = summary.build(**run)["best"]["device"]["bench"]
    assert before["latency_p50_ms"] != 0.123
    assert after == before | {"latency_p50_ms": 0.123}


def test_what_was_left_out_early_was_not_trained_but_its_time_counts(run):
    before = summary.build(**run)["search"]
    run["state"]["candidates"]["999999999999"] = {**judged(None, None, feasible=False), "status": "dropped"}
    run["short"] = [trained(0.4, [116.0, 119.0])]
    found = summary.build(**run)
    after = found["search"]
    assert (before["dropped"], after["dropped"]) == (0, 1)
    assert (after["trained"], after["failed"]) == (before["trained"], before["failed"])
    assert after["training_s"] == before["training_s"] + 3
    assert ", 1 left out early" in summary.table(found)
