"""Training reads the crop cache in batches; the same arguments give the same batches."""

import numpy as np
import pytest

from edgeloop.data.cache import Split, batches, open_split, window


@pytest.fixture
def split() -> Split:
    """Ten clips; a pixel of clip i, frame t is 16 i + t, its targets are (i, -i)."""
    values = (16 * np.arange(10)[:, None] + np.arange(16)).astype(np.uint8)
    clips = np.broadcast_to(values[:, :, None, None], (10, 16, 41, 41)).copy()
    return Split(clips, np.stack([np.arange(10), -np.arange(10)], 1).astype(np.float32))


def order(split: Split, size=4, **options) -> list[int]:
    return [int(i) for _, targets in batches(split, size, **options) for i in targets[:, 0]]


def test_without_a_generator_the_clips_come_in_order_and_the_last_batch_is_smaller(split):
    found = list(batches(split, 4, rng=None))
    assert [len(clips) for clips, _ in found] == [4, 4, 2]
    assert order(split, rng=None) == list(range(10))
    assert np.array_equal(np.concatenate([clips for clips, _ in found]), split.clips)
    assert all(clips.dtype == np.uint8 and targets.dtype == np.float32 for clips, targets in found)


def test_a_generator_shuffles_and_its_seed_repeats(split):
    assert sorted(order(split, rng=np.random.default_rng(1))) == list(range(10))
    assert order(split, rng=np.random.default_rng(1)) == order(split, rng=np.random.default_rng(1))
    assert order(split, rng=np.random.default_rng(1)) != order(split, rng=np.random.default_rng(2))


def test_clips_and_targets_stay_together(split):
    for clips, targets in batches(split, 3, rng=np.random.default_rng(1), frames=8):
        assert np.array_equal(clips[:, 0, 0, 0] // 16, targets[:, 0])


def test_fewer_frames_are_the_centre_unless_shifted(split):
    (clips, _), *_ = batches(split, 10, rng=None, frames=4)
    assert clips.shape == (10, 4, 41, 41) and clips[0, :, 0, 0].tolist() == [6, 7, 8, 9]
    rng = np.random.default_rng(1)
    starts = {
        int(clips[0, 0, 0, 0]) % 16 for _ in range(40) for clips, _ in batches(split, 5, rng=rng, frames=4, shift=True)
    }
    assert starts == set(range(13))


def test_the_window_is_a_view_of_the_centre(split):
    view = window(split.clips, 6)
    assert np.shares_memory(view, split.clips) and view[0, :, 0, 0].tolist() == [5, 6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="17 frames from clips of 16"):
        window(split.clips, 17)


def test_a_limit_takes_the_same_clips_every_time_and_nests(split):
    four, six = (set(order(split, rng=np.random.default_rng(seed), limit=n)) for seed, n in ((1, 4), (2, 6)))
    assert len(four) == 4 and len(six) == 6 and four < six
    assert order(split, rng=None, limit=4) == sorted(four)
    assert order(split, rng=None, limit=99) == list(range(10))


def test_a_part_is_those_rows_of_the_batches_of_all(split):
    def read(part):
        options = {"rng": np.random.default_rng(1), "frames": 4, "shift": True, "limit": 9, "part": part}
        return list(batches(split, 4, **options))

    parts = [read(lambda rows: slice(0, rows // 2)), read(lambda rows: slice(rows // 2, rows))]
    assert [[len(clips) for clips, _ in part] for part in parts] == [[2, 2, 0], [2, 2, 1]]
    for whole, *halves in zip(read(None), *parts, strict=True):
        for column in (0, 1):
            assert np.array_equal(whole[column], np.concatenate([half[column] for half in halves]))


@pytest.mark.parametrize("frames", [16, 5])
def test_batches_in_memory_that_is_used_again_are_the_same_batches(split, frames):
    options = {"frames": frames, "shift": frames < 16}
    fresh = list(batches(split, 4, rng=np.random.default_rng(1), **options))
    again, place = batches(split, 4, rng=np.random.default_rng(1), reuse=True, **options), None
    for (clips, targets), (reused, reused_targets) in zip(fresh, again, strict=True):
        assert np.array_equal(clips, reused) and np.array_equal(targets, reused_targets)
        assert place is None or np.shares_memory(place, reused)
        place = reused
    assert not np.shares_memory(fresh[0][0], fresh[1][0])


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (0, {}, "batch_size must be at least 1"),
        (4, {"limit": 0}, "limit must be at least 1"),
        (4, {"frames": 17}, "17 frames"),
        (4, {"shift": True}, "pass a generator"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_the_call(split, size, options, message):
    with pytest.raises(ValueError, match=message):
        batches(split, size, rng=None, **options)


def test_opening_names_what_is_missing_or_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="no split 'holdout'"):
        open_split(tmp_path, "holdout")
    with pytest.raises(FileNotFoundError, match="run `prepare` first"):
        open_split(tmp_path, "train")
    np.save(tmp_path / "train.clips.npy", np.zeros((3, 16, 41, 41), np.uint8))
    np.save(tmp_path / "train.targets.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="3 clips but 2 targets"):
        open_split(tmp_path, "train")


def test_an_opened_split_is_mapped_not_read(tmp_path, split):
    np.save(tmp_path / "train.clips.npy", split.clips)
    np.save(tmp_path / "train.targets.npy", split.targets)
    opened = open_split(tmp_path, "train")
    assert isinstance(opened.clips, np.memmap) and not opened.clips.flags.writeable
    assert len(opened) == 10
