"""The simulator writes RAISE-LPBF objects, and the same ones for the same seed."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgeloop.data.simulate import PRESETS, write_object
from edgeloop.progress import progress

SIZES = {"layers": 3, "lines": 20, "frame_px": 48, "min_frames": 8, "max_frames": 20}


def write(path: Path, name="D01", *, seed=1, simulation=PRESETS["clear"], **sizes) -> dict:
    return write_object(path, name, seed=seed, simulation=simulation, **{**SIZES, **sizes})


def layers(path: Path) -> dict[str, dict[str, np.ndarray]]:
    with h5py.File(path) as file:
        return {name: {key: file[name][key][()] for key in file[name]} for name in file}


def runs(lit: np.ndarray) -> int:
    return int(np.sum(np.diff(np.concatenate([[False], lit]).astype(int)) == 1))


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"name": "D02"}, {"simulation": replace(PRESETS["clear"], flicker=0.03)}],
    ids=["seed", "name", "parameter"],
)
def test_another_seed_name_or_parameter_gives_other_video(tmp_path, other):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5", **other)
    first, second = (next(iter(layers(tmp_path / f"{n}.h5").values()))["frame"] for n in "ab")
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_the_file_has_the_layout_of_raise_lpbf(tmp_path):
    record = write(tmp_path / "a.h5")
    found = layers(tmp_path / "a.h5")
    assert len(found) == 3
    for name, layer in found.items():
        assert name.startswith("layer") and len(name) == len("layer0000")
        assert layer["frame"].dtype == np.uint8 and layer["frame"].shape[1:] == (48, 48)
        assert layer["scan_line_index"].shape == (len(layer["frame"]),)
        assert layer["laser_params"].shape == (20, 2)
        assert layer["scan_line_index"].max() < 20
    assert record["frames"] == sum(len(layer["frame"]) for layer in found.values())
    assert record["lines"] == sum(len(np.unique(layer["scan_line_index"])) for layer in found.values())


def test_layer_numbers_and_line_numbers_have_gaps(tmp_path):
    simulation = replace(PRESETS["clear"], missing_layers=0.5, missing_lines=0.2)
    write(tmp_path / "a.h5", simulation=simulation, layers=8, min_frames=1, max_frames=2)
    found = layers(tmp_path / "a.h5")
    numbers = np.array([int(name[5:]) for name in found])
    assert (np.diff(numbers) > 1).any()
    assert any(len(np.unique(layer["scan_line_index"])) < 20 for layer in found.values())


def test_lines_are_as_long_as_asked_and_vary(tmp_path):
    write(tmp_path / "a.h5")
    lit = []
    for layer in layers(tmp_path / "a.h5").values():
        bright = layer["frame"].max((1, 2)) > 100
        lit += [int(bright[layer["scan_line_index"] == line].sum()) for line in np.unique(layer["scan_line_index"])]
    assert min(lit) >= 7 and max(lit) <= 20  # a flicker may darken a single frame
    assert len(set(lit)) > 5


@pytest.mark.parametrize(("preset", "speed_std", "power_std"), [("clear", 346.4, 66.4), ("realistic", 331.0, 66.0)])
def test_labels_spread_as_in_the_facts(tmp_path, preset, speed_std, power_std):
    write(tmp_path / "a.h5", simulation=PRESETS[preset], lines=600, min_frames=1, max_frames=1, layers=2)
    labels = np.concatenate([layer["laser_params"] for layer in layers(tmp_path / "a.h5").values()])
    assert labels.std(0) == pytest.approx([speed_std, power_std], rel=0.05)
    assert labels.mean(0) == pytest.approx([900, 215], rel=0.03)


def test_realistic_lines_have_175_lit_runs_and_dark_frames(tmp_path):
    write(tmp_path / "a.h5", simulation=PRESETS["realistic"], lines=150, min_frames=16, max_frames=40, layers=2)
    counts, dark = [], []
    for layer in layers(tmp_path / "a.h5").values():
        lit = layer["frame"].max((1, 2)) > 100
        dark.append(1 - lit.mean())
        counts += [runs(lit[layer["scan_line_index"] == line]) for line in np.unique(layer["scan_line_index"])]
    assert np.mean(counts) == pytest.approx(1.75, abs=0.25)
    assert 0.1 < np.mean(dark) < 0.4


def test_more_power_makes_a_larger_pool_and_more_speed_a_thinner_one(tmp_path):
    simulation = replace(PRESETS["clear"], missing_lines=0.0)
    write(tmp_path / "a.h5", simulation=simulation, lines=150, layers=1, min_frames=6, max_frames=6)
    (layer,) = layers(tmp_path / "a.h5").values()
    area = np.array([(layer["frame"][layer["scan_line_index"] == line] > 150).sum((1, 2)).max() for line in range(150)])
    design = np.c_[np.ones(150), layer["laser_params"] / [900, 215]]
    _, speed, power = np.linalg.lstsq(design, np.log(area + 1), rcond=None)[0]
    assert speed < 0 < power


@pytest.mark.parametrize(
    "sizes",
    [{"layers": 0}, {"lines": 0}, {"frame_px": 40}, {"min_frames": 0}, {"min_frames": 9, "max_frames": 8}],
    ids=lambda sizes: ",".join(sizes),
)
def test_sizes_that_make_no_sense_are_refused_and_nothing_is_written(tmp_path, sizes):
    with pytest.raises(ValueError, match=next(iter(sizes)).split("_")[0]):
        write(tmp_path / "a.h5", **sizes)
    assert not list(tmp_path.iterdir())


def test_progress_tells_of_every_layer_and_changes_no_byte(tmp_path, capfd):
    write(tmp_path / "silent.h5")
    write(tmp_path / "told.h5", progress=progress)
    assert re.findall(r"simulate D01: layer (\d)/3", capfd.readouterr().err) == ["1", "2", "3"]
    assert (tmp_path / "told.h5").read_bytes() == (tmp_path / "silent.h5").read_bytes()
