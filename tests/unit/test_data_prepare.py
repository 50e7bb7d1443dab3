"""`prepare` turns raw files into the crop cache, and tells what it had to leave out."""

import csv
import json
import re
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgeloop.data import raw
from edgeloop.data.cache import open_split
from edgeloop.data.prepare import brightest_pixel, clip_starts, lit_runs, prepare
from edgeloop.data.simulate import PRESETS, write_object
from edgeloop.progress import progress

BY_LAYER = {"validation": {"share": 0.3, "by": "layer"}}


def line(frames: int, *, row=30, column=28, size=60, dark=()) -> np.ndarray:
    """A bright spot of three pixels on a dim ground; the frames listed in `dark` have the laser off."""
    video = np.full((frames, size, size), 5, np.uint8)
    video[:, row - 1 : row + 2, column - 1 : column + 2] = 180
    video[:, row, column] = 220
    video[list(dark)] = 5
    return video


def layer(lines: dict[int, np.ndarray], labels="each") -> dict[str, np.ndarray]:
    """Datasets of a layer; `labels` "each" gives row i to line i, "none" withholds them."""
    content = {
        "frame": np.concatenate(list(lines.values())),
        "scan_line_index": np.repeat(list(lines), [len(video) for video in lines.values()]),
    }
    if isinstance(labels, np.ndarray):
        content["laser_params"] = labels
    elif labels == "each":
        count = max(lines) + 1
        content["laser_params"] = np.stack([900.0 + np.arange(count), 215.0 + np.arange(count)], 1)
    return content


def good(count=4, **kwargs) -> dict[str, np.ndarray]:
    return layer({number: line(18) for number in range(count)}, **kwargs)


def write(path: Path, groups: dict[str, dict[str, np.ndarray]], **options) -> Path:
    with h5py.File(path, "w") as file:
        for name, content in groups.items():
            for key, value in content.items():
                file.create_dataset(f"{name}/{key}", data=value, **(options if key == "frame" else {}))
    return path


def run(files: list[Path], folder: Path, **changes) -> dict:
    settings = dict(source="test", lit_threshold=100, clips_per_line=1, split=BY_LAYER, seed=1) | changes
    return prepare(files, folder, **settings)


def index(folder: Path, *splits: str) -> list[dict[str, str]]:
    rows = []
    for split in splits or ("train", "validation", "test", "unlabelled"):
        with (folder / f"{split}.index.csv").open() as file:
            rows += [{**row, "split": split} for row in csv.DictReader(file)]
    return rows


@pytest.fixture
def healthy(tmp_path) -> Path:
    return write(tmp_path / "C001.h5", {f"layer{n:04d}": good() for n in (3, 4, 7, 9)})


# What a clip is


def test_clips_are_cut_around_the_brightest_pixel_within_a_lit_run(tmp_path):
    video = line(40, row=33, column=25, dark=(0, 1, 20))  # lit runs 2..19 and 21..39
    content = layer({0: line(18), 1: video})
    file = write(tmp_path / "C001.h5", {"layer0001": content, "layer0002": content})
    run([file], tmp_path / "cache", clips_per_line=50, split={"validation": {"share": 0.5, "by": "layer"}})
    rows = [row for row in index(tmp_path / "cache", "train") if row["line"] == "1"]
    assert {(row["row"], row["column"]) for row in rows} == {("33", "25")}
    starts = sorted(int(row["start_frame"]) - 18 for row in rows)
    assert starts == [2, 3, 4, 21, 22, 23, 24]  # every place within the two runs, none across the dark frame
    clips = open_split(tmp_path / "cache", "train").clips
    assert clips.dtype == np.uint8 and clips.shape[1:] == (16, 41, 41)
    assert (clips[:, :, 20, 20] == 220).all()


def test_a_clip_is_the_very_pixels_of_the_raw_file(tmp_path):
    file = tmp_path / "D01.h5"
    sizes = dict(seed=2, layers=4, lines=12, frame_px=64, min_frames=18, max_frames=30)
    write_object(file, "D01", simulation=PRESETS["realistic"], **sizes)
    run([file], tmp_path / "cache", clips_per_line=2)
    clips, rows = open_split(tmp_path / "cache", "train").clips, index(tmp_path / "cache", "train")
    assert len(clips) == len(rows) > 10
    with h5py.File(file) as content:
        for clip, row in zip(clips, rows, strict=True):
            start, y, x = int(row["start_frame"]), int(row["row"]), int(row["column"])
            frames = content[row["layer"]]["frame"][start : start + 16]
            lines = content[row["layer"]]["scan_line_index"][start : start + 16]
            assert np.array_equal(clip, frames[:, y - 20 : y + 21, x - 20 : x + 21])
            assert (lines == int(row["line"])).all() and (frames.max((1, 2)) > 100).all()


def test_targets_are_the_labels_of_the_clips_own_line(healthy, tmp_path):
    run([healthy], tmp_path / "cache")
    targets, rows = open_split(tmp_path / "cache", "train").targets, index(tmp_path / "cache", "train")
    expected = [[(900 + int(row["line"])) / 900, (215 + int(row["line"])) / 215] for row in rows]
    assert targets.dtype == np.float32
    assert targets == pytest.approx(np.array(expected))


def test_clips_spread_over_the_runs():
    assert clip_starts([(0, 20)], 16, 1) == [2]
    assert clip_starts([(0, 16), (30, 46), (60, 70)], 16, 5) == [0, 30]
    assert clip_starts([(0, 15)], 16, 3) == []
    assert lit_runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]


def test_a_saturated_pool_is_centred():
    video = np.zeros((3, 50, 50), np.uint8)
    video[:, 10:21, 20:31] = 255
    assert brightest_pixel(video) == (15, 25)


# Layouts


def test_object_groups_and_layers_at_the_root_are_both_read(tmp_path):
    grouped = write(tmp_path / "train.h5", {f"C0{o}/layer{n:04d}": good() for o in (27, 30) for n in (1, 2)})
    flat = write(tmp_path / "C042.h5", {"layer0010": good()})
    record = run([grouped, flat], tmp_path / "cache", split={"validation": {"objects": ["C030"]}})
    assert record["splits"]["train"]["objects"] == ["C027", "C042"]
    assert record["splits"]["validation"] == {"clips": 8, "lines": 8, "layers": 2, "objects": ["C030"]}


def test_gaps_in_line_numbers_keep_each_lines_own_label(tmp_path):
    content = layer({2: line(18), 5: line(18)})  # rows 0 to 5: lines 0, 1, 3, 4 have no frames
    file = write(tmp_path / "C001.h5", {"layer0001": content, "layer0009": content})
    run([file], tmp_path / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
    assert open_split(tmp_path / "cache", "train").targets[:, 0] * 900 == pytest.approx([902, 905])


def test_lines_numbered_from_one_are_recognised_and_said(tmp_path):
    labels = np.array([[901.0, 215], [902, 215], [903, 215]])
    file = write(
        tmp_path / "C001.h5",
        {
            "layer0001": layer({1: line(18), 3: line(18)}, labels),
            "layer0002": layer({1: line(18), 2: line(18)}, labels),  # alone it would read as counted from 0
        },
    )
    record = run([file], tmp_path / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
    labels_of = {}
    for name in ("train", "validation"):
        for row, target in zip(
            index(tmp_path / "cache", name), open_split(tmp_path / "cache", name).targets, strict=True
        ):
            labels_of[row["layer"], row["line"]] = round(float(target[0] * 900))
    assert labels_of == {
        ("layer0001", "1"): 901,
        ("layer0001", "3"): 903,
        ("layer0002", "1"): 901,
        ("layer0002", "2"): 902,
    }
    assert any("from 1" in message for message in record["messages"])


def test_line_numbers_at_will_take_the_rows_in_order_and_it_is_said(tmp_path):
    content = layer({100: line(18), 205: line(18)}, np.array([[901.0, 215], [902, 215]]))
    file = write(tmp_path / "C001.h5", {"layer0001": content, "layer0002": content})
    record = run([file], tmp_path / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
    assert open_split(tmp_path / "cache", "train").targets[:, 0] * 900 == pytest.approx([901, 902])
    assert any("in the order of the line numbers" in message for message in record["messages"])


def test_withheld_labels_serve_prediction_only_and_it_is_said(healthy, tmp_path):
    withheld = write(tmp_path / "C029.h5", {"layer0001": good(labels="none")})
    record = run([healthy, withheld], tmp_path / "cache")
    assert record["splits"]["unlabelled"]["objects"] == ["C029"]
    assert np.isnan(open_split(tmp_path / "cache", "unlabelled").targets).all()
    assert any("C029" in message and "prediction only" in message for message in record["messages"])


def test_files_without_any_label_make_a_cache_for_prediction(tmp_path):
    file = write(tmp_path / "C029.h5", {"layer0001": good(labels="none")})
    record = run([file], tmp_path / "cache")
    assert record["splits"]["unlabelled"]["clips"] == 4 and record["splits"]["train"]["clips"] == 0
    assert len(open_split(tmp_path / "cache", "train")) == 0


# What cannot be used: by name, count and example, at no cost to the rest


def truncated(path: Path) -> Path:
    write(path, {"layer0001": good()})
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def garbage(path: Path) -> Path:
    path.write_bytes(b"this is no HDF5 file" * 100)
    return path


def undecodable(path: Path) -> Path:
    """A file whose frames are compressed and overwritten in their middle."""
    noise = np.random.default_rng(0).integers(0, 255, (18, 60, 60), np.uint8)
    write(path, {"layer0001": layer({0: noise, 1: noise})}, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["layer0001/frame"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    return path


NAN_LABEL = np.array([[900.0, 215.0], [np.nan, 215.0]])
TROUBLES = {
    "line_too_short": lambda path: write(path, {"layer0001": layer({0: line(18), 1: line(15)})}),
    "no_lit_run": lambda path: write(path, {"layer0001": layer({0: line(18), 1: line(18, dark=range(18))})}),
    "crop_meets_border": lambda path: write(path, {"layer0001": layer({0: line(18), 1: line(18, row=19)})}),
    "labels_not_finite": lambda path: write(path, {"layer0001": layer({0: line(18), 1: line(18)}, NAN_LABEL)}),
    "labels_ambiguous": lambda path: write(path, {"layer0001": layer({0: line(18), 7: line(18)}, np.ones((5, 2)))}),
    "line_in_pieces": lambda path: write(
        path,
        {
            "layer0001": {
                "frame": line(60),
                "scan_line_index": np.repeat([0, 1, 0], 20),
                "laser_params": np.ones((2, 2)),
            }
        },
    ),
    "layer_of_another_layout": lambda path: write(path, {"layer0001": {"frame": np.zeros((4, 60, 60))}}),
    "layer_damaged": undecodable,
    "file_of_another_layout": lambda path: write(path, {"images": {"frame": np.zeros((4, 60, 60), np.uint8)}}),
    "file_truncated": truncated,
    "file_unreadable": garbage,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_is_counted_by_name_and_costs_no_other_file(healthy, tmp_path, name):
    alone = run([healthy], tmp_path / "alone")
    bad = TROUBLES[name](tmp_path / "C666.h5")
    record = run([bad, healthy], tmp_path / "cache")
    assert record["problems"][name]["count"] == 1
    assert "C666" in record["problems"][name]["examples"][0]
    assert any(message.startswith(name) for message in record["messages"])
    kept = [row for row in index(tmp_path / "cache") if row["object"] == "C001"]
    assert len(kept) == sum(split["clips"] for split in alone["splits"].values())


@pytest.mark.parametrize(
    ("row", "fits"),
    [(20, True), (19, False), (39, True), (40, False)],
    ids=["top", "above", "bottom", "below"],
)
def test_a_crop_may_touch_the_border_but_not_cross_it(tmp_path, row, fits):
    content = layer({0: line(18), 1: line(18, row=row)})
    file = write(tmp_path / "C001.h5", {"layer0001": content, "layer0002": content})
    record = run([file], tmp_path / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
    assert ("crop_meets_border" not in record["problems"]) == fits


def test_a_layer_that_comes_twice_is_used_once(healthy, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = Path(healthy.rename(tmp_path / "copy" / "C001.h5"))
    again = write(tmp_path / "C001.h5", {"layer0003": good()})
    record = run([copy, again], tmp_path / "cache")
    assert record["problems"]["layer_repeated"] == {"count": 1, "examples": ["C001/layer0003 in C001.h5"]}


def test_examples_stop_at_five_but_counting_does_not(tmp_path):
    content = layer({0: line(18)} | {number: line(10) for number in range(1, 9)})
    file = write(tmp_path / "C001.h5", {"layer0001": content, "layer0002": content})
    record = run([file], tmp_path / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
    assert record["problems"]["line_too_short"]["count"] == 16
    assert len(record["problems"]["line_too_short"]["examples"]) == 5
    assert record["problems"]["line_too_short"]["examples"][0] == "C001/layer0001/line 1"


def test_no_usable_clip_names_the_files_and_why(tmp_path):
    files = [truncated(tmp_path / "C001.h5"), garbage(tmp_path / "C002.h5")]
    with pytest.raises(ValueError, match=r"(?s)C001\.h5.*C002\.h5.*file_truncated.*file_unreadable"):
        run(files, tmp_path / "cache")
    short = write(tmp_path / "C003.h5", {f"layer000{n}": layer({0: line(10)}) for n in (1, 2)})
    with pytest.raises(ValueError, match=r"C003\.h5.*line_too_short \(2\)"):
        run([short], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_that_does_not_exist_is_named(healthy, tmp_path):
    record = run([healthy, tmp_path / "C404.h5"], tmp_path / "cache")
    assert "C404.h5" in record["problems"]["file_unreadable"]["examples"][0]


# Splits


def test_no_layer_serves_two_splits_and_all_are_used(tmp_path):
    files = [write(tmp_path / f"C{o:03d}.h5", {f"layer{n:04d}": good(2) for n in range(5)}) for o in (1, 2, 3, 4)]
    split = {"test": {"share": 0.25, "by": "object"}, "validation": {"share": 0.2, "by": "layer"}}
    record = run(files, tmp_path / "cache", split=split)
    of_layer: dict[tuple, set] = {}
    for row in index(tmp_path / "cache"):
        of_layer.setdefault((row["object"], row["layer"]), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_layer.values()) and len(of_layer) == 20
    assert len(record["splits"]["test"]["objects"]) == 1 and record["splits"]["test"]["layers"] == 5
    assert record["splits"]["validation"]["layers"] == 3
    assert not set(record["splits"]["test"]["objects"]) & set(record["splits"]["train"]["objects"])


def test_the_split_follows_the_seed_alone(tmp_path):
    file = write(tmp_path / "C001.h5", {f"layer{n:04d}": good(2) for n in range(12)})

    def validation(seed: int) -> tuple[set, str]:
        record = run([file], tmp_path / "cache", seed=seed)
        return {row["layer"] for row in index(tmp_path / "cache", "validation")}, record["fingerprint"]

    assert validation(1) == validation(1)
    assert len({frozenset(validation(seed)[0]) for seed in range(4)}) > 1
    assert validation(1)[1] != validation(2)[1]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"test": {"objects": ["D04"]}, **BY_LAYER}, r"split\.test\.objects names D04.*Objects found: C001"),
        ({"validation": {"objects": ["C001"]}}, "The train split has no layer"),
        ({}, "The validation split has no layer.*split.validation"),
        ({"validation": {"share": 0.5, "by": "object"}}, "leaves none for training.*by layer instead"),
        ({"test": {"objects": ["C001"]}, **BY_LAYER}, "The train split has no layer"),
    ],
)
def test_a_split_that_cannot_work_says_what_to_change(healthy, tmp_path, split, message):
    with pytest.raises(ValueError, match=message):
        run([healthy], tmp_path / "cache", split=split)


def test_a_validation_layer_without_clips_says_what_to_change(tmp_path):
    dark = layer({0: line(18, dark=range(18))})
    file = write(tmp_path / "all.h5", {"A/layer0001": good(), "B/layer0001": dark})
    with pytest.raises(ValueError, match=r"The validation split is empty.*no_lit_run"):
        run([file], tmp_path / "cache", split={"validation": {"objects": ["B"]}})


# The cache as a whole


def test_progress_tells_of_every_layer(healthy, tmp_path, capfd):
    run([healthy], tmp_path / "cache", progress=progress)
    assert re.findall(r"prepare: layer (\d)/4", capfd.readouterr().err) == ["1", "2", "3", "4"]


def test_the_record_describes_the_cache(healthy, tmp_path):
    record = run([healthy], tmp_path / "cache")
    assert record == json.loads((tmp_path / "cache" / "cache.json").read_text())
    assert record["status"] == "ok" and record["target_scale"] == [900, 215]
    assert record["files"] == [{"name": "C001.h5", "size": healthy.stat().st_size}]
    parity, targets = (np.load(tmp_path / "cache" / f"{name}.npy") for name in ("parity", "parity_targets"))
    assert np.array_equal(parity, open_split(tmp_path / "cache", "validation").clips)  # fewer than 256: all of them
    assert np.array_equal(targets, open_split(tmp_path / "cache", "validation").targets)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_a_failed_run_leaves_the_former_cache_alone(healthy, tmp_path):
    run([healthy], tmp_path / "cache")
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    with pytest.raises(ValueError, match="file_unreadable"):
        run([garbage(tmp_path / "C002.h5")], tmp_path / "cache")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}


PREPARE = """
    import resource, sys
    from pathlib import Path
    from edgeloop.data.prepare import prepare
    split = {"validation": {"share": 0.5, "by": "layer"}}
    prepare([Path(sys.argv[1])], Path(sys.argv[2]), source="test", lit_threshold=100, clips_per_line=1, split=split,
            seed=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_memory_of_the_whole_process_does_not_grow_with_a_file_four_times_as_large(tmp_path):
    def peak_mb(layers: int) -> float:
        folder = tmp_path / str(layers)
        folder.mkdir()
        content = layer({n: line(18, size=96) for n in range(100)})  # 17 MB of frames
        file = write(folder / "C001.h5", {f"layer{n:04d}": content for n in range(layers)})
        command = [sys.executable, "-c", textwrap.dedent(PREPARE), str(file), str(folder / "cache")]
        # Fresh processes: this one has had its peak.
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert len(open_split(folder / "cache", "train")) == 100 * layers // 2
        return int(said) / 1024

    small, large = peak_mb(4), peak_mb(16)  # 66 and 265 MB of frames
    assert large < small + 16


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr("edgeloop.data.prepare.PARITY_CLIPS", 8)

    def peak(lines: int) -> int:
        folder = tmp_path / str(lines)
        folder.mkdir()
        file = folder / "C001.h5"
        with h5py.File(file, "w") as content:
            for name in ("layer0001", "layer0002"):
                for key, value in layer({n: line(18) for n in range(lines)}).items():
                    content.create_dataset(f"{name}/{key}", data=value)
        tracemalloc.start()
        run([file], folder / "cache", split={"validation": {"share": 0.5, "by": "layer"}})
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    small, large = peak(30), peak(300)  # 2 x 1.9 MB and 2 x 19 MB of frames
    assert large < small + 1_000_000
