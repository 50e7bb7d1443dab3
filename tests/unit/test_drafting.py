"""Untrained networks are exported, many at once; one that cannot be is data."""

import numpy as np
import onnxruntime

from edgeloop.drafting import draft_all
from edgeloop.records import read_json

TINY = {"family": "conv2d", "frames": 4, "pixels": 25, "widths": [4]}


def entry(**genes):
    return {"architecture": TINY | genes, "precision": "fp32"}


def test_networks_become_files_that_run_and_an_impossible_one_a_failed_record(tmp_path):
    architectures = {"a" * 12: entry(), "b" * 12: entry(kernel=4), "c" * 12: entry(widths=[8], frames=8)}
    reasons = draft_all(architectures, tmp_path / "drafts", processes=2)
    assert list(reasons) == ["b" * 12] and "kernel" in reasons["b" * 12]
    for name, frames in (("a" * 12, 4), ("c" * 12, 8)):
        session = onnxruntime.InferenceSession(tmp_path / f"drafts/{name}.onnx", providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {"clip": np.zeros((1, frames, 41, 41), np.uint8)})
        assert output.shape == (1, 2) and np.isfinite(output).all()
    record = read_json(tmp_path / f"drafts/{'b' * 12}.failed.json")
    assert record["status"] == "failed" and record["reason"] == reasons["b" * 12]
    assert len(list((tmp_path / "drafts").iterdir())) == 3


def test_progress_is_told_of_each_network(tmp_path):
    told = []

    def progress(items, *, total, label, unit):
        for item in items:
            yield item
            told.append((label, unit, total))

    draft_all({"a" * 12: entry(), "b" * 12: entry(kernel=4)}, tmp_path / "drafts", processes=1, progress=progress)
    assert told == [("draft", "network", 2)] * 2


def test_nothing_to_draft_is_an_empty_folder(tmp_path):
    assert draft_all({}, tmp_path / "drafts", processes=2) == {}
    assert list((tmp_path / "drafts").iterdir()) == []
