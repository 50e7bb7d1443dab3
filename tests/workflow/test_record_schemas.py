"""Every JSON file that a run leaves keeps to its schema in workflow/schemas."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

pytestmark = pytest.mark.workflow

SCHEMAS = {
    file.name: yaml.safe_load(file.read_text())
    for file in (Path(__file__).parents[2] / "workflow/schemas").glob("*.yaml")
}
REGISTRY = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items())

KINDS = {
    "comparison.*.json": "comparison",
    "summary.json": "summary",
    "predictors.json": "predictors",
    "generations/history.*.json": "history",
    "data/cache.json": "cache",
    "devices/*.json": "enrolment",
    "generations/*/proposals.json": "proposals",
    "generations/*/screening.*.json": "screening",
    "generations/*/population.json": "population",
    "generations/*/state.json": "state",
    "warm_start.json": "warm_start",
    "candidates/*/genotype.json": "candidate",
    "candidates/*/train.json": "train",
    "candidates/*/export.json": "export",
    "candidates/*/measure.*.json": "measure",
    "finalists.json": "finalists",
    "finalists/*/*/train.json": "train",
    "finalists/*/*/export.json": "export",
    "finalists/*/*/measure.*.json": "measure",
    "finalists/*/*/test.json": "test",
}


def problems(kind, record):
    schema = "candidate.schema.yaml" if kind == "candidate" else f"records.schema.yaml#/$defs/{kind}"
    validator = jsonschema.Draft202012Validator({"$ref": schema}, registry=REGISTRY)
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(record)]


def one(finished, kind):
    pattern = next(pattern for pattern, name in KINDS.items() if name == kind)
    return json.loads(sorted(finished.path("").glob(pattern))[0].read_text())


@pytest.mark.parametrize(("pattern", "kind"), KINDS.items(), ids=KINDS.keys())
def test_a_finished_run_leaves_records_that_keep_to_their_schema(finished, pattern, kind):
    files = sorted(finished.path("").glob(pattern))
    assert files
    assert {file.name: found for file in files if (found := problems(kind, json.loads(file.read_text())))} == {}


def test_every_json_file_of_a_run_has_a_schema(finished):
    known = {file for pattern in KINDS for file in finished.path("").glob(pattern)}
    assert set(finished.path("").rglob("*.json")) == known


BROKEN = [
    ("train", {"val_rmse": None}, "None is not of type 'number'"),
    ("train", {"status": "failed"}, "'reason' is a required property"),
    ("train", {"reason": "none"}, "does not allow 'none'"),
    ("train", {"val_rmse_kmh": 1.0}, "'val_rmse_kmh' was unexpected"),
    ("train", {"schema_version": 2}, "1 was expected"),
    ("export", {"outputs": None}, "None is not of type 'array'"),
    ("export", {"status": "done"}, "'done' is not one of"),
    ("measure", {"latency_ms": -0.1}, "-0.1 is less than or equal to the minimum"),
    ("measure", {"samples_ms": []}, "$.samples_ms"),
    ("measure", {"latency_us": 40}, "'latency_us' was unexpected"),
    ("enrolment", {"fingerprint": {}}, "'arch' is a required property"),
    ("proposals", {"proposals": [{"architecture": {}}]}, "'family' is a required property"),
    ("population", {"candidates": ["one"]}, "'one' does not match"),
    ("state", {"stop": True}, "None is not of type 'string'"),
    ("state", {"budgets": {"this-machine": {"latency_ms": 0}}}, "0 is less than or equal to the minimum"),
    ("cache", {"splits": {}}, "'train' is a required property"),
    ("summary", {"best": {}}, "$.best"),
    ("candidate", {"candidate": "EDB94BC8041B"}, "does not match"),
]


@pytest.mark.parametrize(
    ("kind", "change", "complaint"), BROKEN, ids=[f"{kind}-{next(iter(c))}" for kind, c, _ in BROKEN]
)
def test_a_broken_record_is_told(finished, kind, change, complaint):
    record = one(finished, kind)
    if kind == "train":  # any but the one of a network that is measured for latency only
        files = finished.path("candidates").glob("*/train.json")
        record = next(r for r in map(json.loads, map(Path.read_text, files)) if r["val_rmse"] is not None)
    assert problems(kind, record) == []
    assert complaint in "\n".join(problems(kind, record | change))


@pytest.mark.parametrize("key", ["latency_ms", "latency_p99_ms", "ratio", "samples_ms", "parity_max_abs_difference"])
def test_a_measurement_without_a_figure_is_told(finished, key):
    record = copy.deepcopy(one(finished, "measure"))
    del record[key]
    assert problems("measure", record) == [f"$: '{key}' is a required property"]


def test_a_failure_needs_no_figures_but_its_reason(finished):
    about = {key: one(finished, "measure")[key] for key in ("schema_version", "device", "work")}
    assert problems("measure", about | {"status": "failed", "reason": "deadline"}) == []
    assert problems("measure", about | {"status": "failed"}) == ["$: 'reason' is a required property"]
