"""The headline experiment's own steps; what it runs is tested elsewhere."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import headline

TIMED = {"latency_ms": 2.0, "latency_p50_ms": 2.1, "latency_p99_ms": 2.5}
GENOTYPE = {"architecture": {"family": "conv2d", "frames": 4, "widths": [8]}, "precision": "fp32"}
TESTED = {"val_rmse": {"mean": 0.25}, "test_rmse": {"mean": 0.3, "std": 0.01, "values": [0.29, 0.31]}}


def test_the_second_search_has_the_clips_of_the_first_and_writes_into_nothing_of_it(tmp_path):
    theirs, mine = tmp_path / "paper", tmp_path / "ours"
    clips, note = Path("results/data/train.clips.npy"), Path(".snakemake/metadata/one")
    for file in (clips, Path("results/raw/S001.h5"), note):
        (theirs / file).parent.mkdir(parents=True, exist_ok=True)
        (theirs / file).write_text("theirs")
    headline.share_clips(theirs, mine)
    assert (mine / clips).samefile(theirs / clips)  # no second copy of what may be many gigabytes
    # As Snakemake writes its notes: into the file that is there.
    (mine / note).write_text("mine")
    assert (theirs / note).read_text() == "theirs"


@pytest.mark.parametrize("finalist", [None, TESTED])
def test_a_network_that_was_timed_only_has_no_error_and_one_that_was_tested_is_held_against_its_bound(finalist):
    entry = {"genotype": GENOTYPE, "parameters": 7, "finalist": finalist, "device": {headline.DEVICE: TIMED}}
    row = headline.row("name", entry, {16: 0.1, 4: 0.15})
    assert (row["latency_ms"], row["p99_ms"]) == (2.0, 2.5)
    if finalist is None:
        assert row["test_rmse"] is None and row["times_irreducible"] is None and row["seeds"] == 0
        assert headline.with_spread(row) == "-"
    else:
        assert (row["times_irreducible"], row["times_irreducible_own_frames"]) == pytest.approx((3.0, 2.0))
        assert headline.with_spread(row) == "0.3000 ± 0.0100"
