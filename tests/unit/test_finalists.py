"""Which networks become finalists, and what their seeds come to together."""

import csv

import numpy as np
import pytest
from bundles import measured, training

from edgeloop import final_test, finalists

# On this front, `knee` adds more to the hypervolume than what is beside the best.
POINTS = {"best": [0.10, 0.9], "near": [0.11, 0.89], "knee": [0.2, 0.2], "fast": [0.8, 0.1]}
STATE = {
    "front": list(POINTS),
    "candidates": {name: {"objectives": point} for name, point in POINTS.items()},
    "reference": [1.0, 1.0],
}


def test_best_takes_those_of_the_lowest_rmse():
    assert finalists.nominate(STATE, 2, "best") == ["best", "near"]


def test_spread_takes_the_best_one_and_what_adds_most_to_it():
    assert finalists.nominate(STATE, 2, "spread") == ["best", "knee"]
    assert finalists.nominate(STATE, 3, "spread") == ["best", "knee", "fast"]


@pytest.mark.parametrize("rule", ["best", "spread"])
def test_a_front_with_fewer_networks_than_asked_for_is_taken_whole(rule):
    assert finalists.nominate(STATE, 9, rule) == list(POINTS)
    assert finalists.nominate(STATE | {"front": ["knee"]}, 3, rule) == ["knee"]
    assert finalists.nominate(STATE | {"front": []}, 3, rule) == []


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="no rule 'worst' for finalists; expected best or spread"):
        finalists.nominate(STATE, 1, "worst")


def test_mean_and_spread_are_those_of_the_seeds():
    found = finalists.together({1: training(0.2, 0.3), 2: training(0.1, 0.5), 3: training(0.3, 0.4)})
    assert found["test_rmse"] == {"mean": pytest.approx(0.4), "std": pytest.approx(0.1), "values": [0.3, 0.5, 0.4]}
    assert found["test_rmse_speed_mm_s"]["mean"] == pytest.approx(360)
    assert found["device"]["bench"]["1"]["latency_ms"]["mean"] == pytest.approx(0.1)
    assert found["epochs"] == 3 and found["failed"] == {}


def test_a_single_seed_has_no_spread():
    assert finalists.together({1: training(0.2, 0.3)})["test_rmse"] == {"mean": 0.3, "std": None, "values": [0.3]}


def test_what_fails_with_one_seed_is_judged_by_the_others_and_says_why():
    found = finalists.together({1: training(0.2, 0.3), 2: training(0, 0, status="failed"), 3: training(0.1, 0.5)})
    assert found["failed"] == {"2": "training diverged"}
    assert found["test_rmse"]["values"] == [0.3, 0.5] and found["chosen"] == 3


def test_what_fails_with_every_seed_has_no_figure():
    found = finalists.together({1: training(0, 0, status="failed")})
    assert found["test_rmse"] is None and found["chosen"] is None and found["device"] == {"bench": {}}


def test_of_networks_that_were_converted_the_file_decides_which_is_deployed():
    seeds = {1: training(0.1, 0.1), 2: training(0.2, 0.2)}
    seeds[1]["export"] |= {"precision": "int8", "val_rmse": 0.4}
    assert finalists.choose(seeds) == 2


def test_the_weights_to_deploy_are_chosen_by_validation_and_not_by_the_test():
    assert finalists.choose({1: training(0.2, 0.1), 2: training(0.1, 0.9)}) == 2
    broken = training(0.01, 0.1)
    broken["measured"]["bench"] = {"status": "failed", "reason": "crashed on the device"}
    assert finalists.choose({1: training(0.2, 0.1), 2: broken}) == 1
    assert finalists.failure(broken) == "crashed on the device"


def test_latencies_of_further_batch_sizes_are_told_beside_the_first():
    refused = {"batch_size": 64, "status": "failed", "reason": "out of memory"}
    further = {"by_batch_size": [measured(8, 0.5), refused]}
    found = finalists.together({1: training(0.2, 0.3, **further), 2: training(0.2, 0.3, 0.3, **further)})
    latencies = {size: figures["latency_ms"]["mean"] for size, figures in found["device"]["bench"].items()}
    assert latencies == {"1": pytest.approx(0.2), "8": 0.5}


def test_without_test_clips_the_errors_are_null():
    assert set(final_test.judge(np.empty((0, 2)), np.empty((0, 2))).values()) == {None}


def test_the_table_of_predictions_has_mm_s_and_w_and_where_each_clip_comes_from(tmp_path):
    index = tmp_path / "index.csv"
    index.write_text("object,layer,line,clip,start_frame,row,column\nS003,layer0001,7,0,3,20,21\n")
    final_test.write_predictions(tmp_path / "out.csv", index, np.array([[1.0, 0.5]]), np.array([[0.5, 1.0]]))
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert row["object"] == "S003" and row["line"] == "7"
    assert [float(row[key]) for key in final_test.PREDICTION_COLUMNS[4:]] == [900, 107.5, 450, 215]
    with pytest.raises(ValueError):
        final_test.write_predictions(tmp_path / "out.csv", index, np.zeros((2, 2)), np.zeros((2, 2)))
