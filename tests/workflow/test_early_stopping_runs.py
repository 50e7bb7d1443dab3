"""Candidates that are given up in a run: a failed record for the search, and no rule for finalists."""

import json

import pytest

pytestmark = pytest.mark.workflow


def read(run, name):
    return json.loads(run.path(name).read_text())


def test_a_hopeless_candidate_is_not_exported_and_a_finalist_is_trained_to_the_end(copy):
    candidate = read(copy, "generations/000/population.json")["candidates"][0]
    copy.config["training"] |= {"epochs": 2, "early_stopping": {"after": [0.5], "above": [0.01]}}
    output = copy.snakemake(
        f"results/candidates/{candidate}/export.json", f"results/finalists/{candidate}/1/train.json", "--force"
    )
    train, export = (read(copy, f"candidates/{candidate}/{name}.json") for name in ("train", "export"))
    assert train["status"] == export["status"] == "failed"
    assert train["stopped_early"]["epoch"] == 1 and len(train["history"]) == 1
    assert export["reason"] == train["reason"] and "was stopped early" in output
    assert copy.path(f"candidates/{candidate}/model.onnx").stat().st_size == 0
    finalist = read(copy, f"finalists/{candidate}/1/train.json")
    assert finalist["status"] == "ok" and len(finalist["history"]) == 2
    assert "network " in output and "samples/s" in output  # the pace of the finalist's training
