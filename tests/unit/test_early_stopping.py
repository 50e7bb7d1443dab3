"""A hopeless training ends early, by a rule that looks at nothing but its own errors."""

import time

import numpy as np
import pytest
from test_training import TRAIN, VALIDATION, genotype, untimed

from edgeloop.early_stopping import EarlyStopping
from edgeloop.records import candidate_id
from edgeloop.rmse import errors_of_mean, rmse
from edgeloop.training import Leg, Settings, train

RULE = EarlyStopping((0.3, 0.5), (0.9, 0.5))


@pytest.mark.parametrize(
    ("errors", "stops"),
    [
        ([0.5, 0.5], False),  # nobody looks before 3 of 10 epochs have ended
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.26, 0.5], False),  # the lowest error counts, here 0.87 times the mean predictor's
        ([0.28, 0.28, 0.28], True),
        ([0.2, 0.2, 0.2, 0.2], False),  # nobody looks here
        ([0.2, 0.2, 0.2, 0.2, 0.2], True),  # more is asked for later
        ([0.2, 0.2, 0.2, 0.2, 0.14], False),
        ([0.5] * 10, False),  # there is nothing left to save
    ],
)
def test_a_rule_looks_after_its_shares_of_the_epochs_at_the_lowest_error_so_far(errors, stops):
    assert RULE.hopeless(errors, 10, mean_rmse=0.3) is stops


def test_each_look_is_after_a_whole_epoch_at_least_and_never_after_the_last():
    assert [epoch for epoch in range(1, 11) if EarlyStopping((0.01, 0.25, 0.95), (1, 1, 1)).limit(epoch, 10)] == [1, 3]
    assert EarlyStopping((0.5,), (1,)).limit(1, 1) is None
    assert EarlyStopping().limit(1, 10) is None


def test_a_rule_with_a_look_without_a_limit_is_refused():
    with pytest.raises(ValueError, match="after has 2 values and above 1"):
        EarlyStopping((0.3, 0.5), (0.9,))


def test_the_measure_is_what_predicting_the_mean_reaches():
    expected = rmse(np.tile(TRAIN.targets.mean(0), (len(VALIDATION), 1)), VALIDATION.targets)["rmse"]
    assert errors_of_mean(TRAIN.targets, VALIDATION.targets)["rmse"] == pytest.approx(expected)


def test_a_hopeless_training_is_a_failed_record_that_says_when_and_why_and_leaves_no_weights(tmp_path):
    settings = Settings(epochs=4, early_stopping={"after": [0.5], "above": [0.01]})
    full = train(genotype(), TRAIN, VALIDATION, Settings(epochs=4))
    began = time.perf_counter()
    record = train(genotype(), TRAIN, VALIDATION, settings, weights_path=tmp_path / "weights.pt")
    took_s = time.perf_counter() - began
    assert record["status"] == "failed" and not (tmp_path / "weights.pt").exists()
    assert record["history"] == full["history"][:2]  # what it did until then is what it would have done
    lowest = min(epoch["val_rmse"] for epoch in record["history"])
    limit = 0.01 * errors_of_mean(TRAIN.targets, VALIDATION.targets)["rmse"]
    assert record["stopped_early"] == {"epoch": 2, "val_rmse": lowest, "limit": pytest.approx(limit)}
    assert record["reason"].startswith(f"training of {candidate_id(genotype())} was stopped early: its lowest ")
    assert f"after 2 of 4 epochs is {lowest:.4f}, above {limit:.4f}" in record["reason"]
    assert 0 < record["training_s"] <= took_s


def test_a_training_that_learns_something_is_not_touched():
    settings = Settings(epochs=4, early_stopping=EarlyStopping((0.5,), (2.0,)))
    assert untimed(train(genotype(), TRAIN, VALIDATION, settings)) == untimed(
        train(genotype(), TRAIN, VALIDATION, Settings(epochs=4))
    )


@pytest.mark.parametrize("rung", [1, 2])
def test_legs_stop_where_an_unbroken_training_does(rung, tmp_path):
    settings = Settings(epochs=4, early_stopping=EarlyStopping((0.5,), (0.01,)))
    unbroken = train(genotype(), TRAIN, VALIDATION, settings)
    leg = Leg(until=rung, checkpoint=tmp_path / "checkpoint")
    record = train(genotype(), TRAIN, VALIDATION, settings, leg=leg)
    if rung == 1:
        assert record["status"] == "ok"
        record = train(genotype(), TRAIN, VALIDATION, settings, leg=Leg(start=leg.checkpoint))
    assert untimed(record) == untimed(unbroken) and record["stopped_early"]["epoch"] == 2
