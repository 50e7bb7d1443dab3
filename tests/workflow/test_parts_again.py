"""The lines of the README that run parts of a finished search again do what stands beside them, and nothing else."""

import re
import shlex

import pytest
from searches import ROOT

from edgeloop.records import read_json

pytestmark = pytest.mark.workflow
SECTION = (ROOT / "README.md").read_text().partition("## Run parts of it again")[2].partition("\n## ")[0]
LINES = dict(re.findall(r"^\| (.*?) \| `\.venv/bin/snakemake --cores 2 (.*)` \|$", SECTION, re.MULTILINE))
DECISIONS = ("generations/*/p*.json",)
WORK = {"simulate", "prepare", "predict", "propose", "sample", "draft"}


def run_again(run, what, replace=None):
    """What jobs the README's line for `what` starts, and the run's output."""
    line = LINES[what]
    for old, new in (replace or {}).items():
        assert old in line
        line = line.replace(old, new)
    decided = run.contents(*DECISIONS)
    output = run.snakemake(*shlex.split(line))
    assert decided.items() <= run.contents(*DECISIONS).items()
    return run.executed(output)


def test_a_finished_search_gets_more_generations(copy):
    trained = copy.contents("candidates/*/train.json")
    executed = run_again(copy, "more generations", {"max_generations: 5": "max_generations: 3"})
    assert executed["train"] == executed["export"] == executed["measure"] == 2 and executed["propose"] == 1
    assert trained.items() <= copy.contents("candidates/*/train.json").items()


def test_another_budget_selects_again_and_trains_and_measures_nothing(copy):
    before = copy.contents("candidates/*/*.json") | copy.contents("generations/*/screening.*.json")
    # The middle latency of what was trained: some are within, some are not.
    state = read_json(copy.path("generations/001/state.json"))
    costs = sorted(entry["objectives"][1] for entry in state["candidates"].values())
    what = "another budget: select again, train nothing"
    executed = run_again(copy, what, {"budget_ms: 0.1": f"budget_ms: {costs[1]}"})
    assert executed["select"] == 2 and executed["conclude"] == executed["compare"] == executed["summarise"] == 1
    # Another network may be the finalist now; nothing of the search is done again.
    assert not {"propose", "screen", "sample", "train", "export", "measure"} & executed.keys()
    assert copy.contents("candidates/*/*.json") | copy.contents("generations/*/screening.*.json") == before
    selected = read_json(copy.path("generations/001/state.json"))["candidates"].values()
    assert 2 <= sum(entry["feasible"] for entry in selected) < 4


def test_one_device_more_is_measured_on_and_nothing_is_trained(copy):
    trained = copy.contents("candidates/*/train.json")
    executed = run_again(copy, "one device more", {"budget_ms: 0.2": "budget_ms: 1000"})
    assert executed["measure"] == 6 and executed["enrol"] == 1
    assert not {"train", "export", *WORK} - {"draft"} & executed.keys()
    assert copy.contents("candidates/*/train.json") == trained
    assert set(read_json(copy.path("summary.json"))["best"]["device"]) == {"this-machine", "second"}


def test_on_a_new_device_everything_is_measured_again_and_nothing_is_trained(copy):
    trained = copy.contents("candidates/*/train.json") | copy.contents("candidates/*/weights.pt")
    measured = copy.contents("candidates/*/measure.*.json") | copy.contents("devices/*.json")
    what = "a new device in the old one's place: measure everything again"
    executed = run_again(copy, what)
    assert executed["enrol"] == 1 and executed["measure"] == 6 and executed["screen"] == executed["select"] == 2
    assert not {"train", "export", *WORK} - {"draft"} & executed.keys()
    assert copy.contents("candidates/*/train.json") | copy.contents("candidates/*/weights.pt") == trained
    now = copy.contents("candidates/*/measure.*.json") | copy.contents("devices/*.json")
    assert now.keys() == measured.keys() and all(now[name] != measured[name] for name in now)


def test_one_candidate_is_trained_again_exported_and_measured_and_no_other(copy):
    candidate = read_json(copy.path("generations/000/population.json"))["candidates"][0]
    before = copy.contents("candidates/*/*.json")
    executed = run_again(copy, "train one candidate again", {"ID": candidate})
    assert executed["train"] == executed["export"] == executed["measure"] == 1
    assert not WORK & executed.keys()
    after = copy.contents("candidates/*/*.json")
    changed = {name for name in before if before[name] != after[name]}
    assert {name.parent.name for name in changed} == {candidate}


def test_every_line_is_tried():
    tried = {
        "more generations",
        "the same, when patience has ended it",  # tests/workflow/test_loop.py, as the next but two
        "another budget: select again, train nothing",
        "one device more",
        "a new device in the old one's place: measure everything again",
        "train one candidate again",
        "one stage of one generation again",
    }
    assert set(LINES) == tried
