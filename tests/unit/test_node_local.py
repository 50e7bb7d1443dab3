"""The node's copy of the crop cache: made once, whole, and never a reason to fail."""

import json
import multiprocessing
import os
import shutil
import time
from collections import namedtuple

import pytest

from edgeloop.data import node_local
from edgeloop.data.node_local import local_copy

FILES = [f"{split}.{part}" for split in ("train", "validation") for part in ("clips.npy", "targets.npy")]


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "cache.json").write_text(json.dumps({"fingerprint": "first"}))
    for number, name in enumerate([*FILES, "test.clips.npy"]):
        (folder / name).write_bytes(name.encode() * (number + 1000))
    return folder


class Said(list):
    def __call__(self, text):
        self.append(text)


def same(folder, copy):
    return all((copy / name).read_bytes() == (folder / name).read_bytes() for name in FILES)


def test_without_the_key_the_shared_cache_is_read(cache):
    assert local_copy(cache, None) == cache


def test_the_splits_that_are_asked_for_are_copied_once_and_used_again(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH_OF_TEST", str(tmp_path / "scratch"))
    said = Said()
    copy = local_copy(cache, "${SCRATCH_OF_TEST}/of/me", say=said)
    assert copy.parent == tmp_path / "scratch/of/me"
    assert sorted(file.name for file in copy.iterdir() if not file.name.startswith(".")) == sorted(FILES)
    assert same(cache, copy) and len(said) == 1
    monkeypatch.setattr(shutil, "copyfile", None)  # a second copy would fail
    assert local_copy(cache, "$SCRATCH_OF_TEST/of/me", say=said) == copy
    assert len(said) == 1


def test_a_file_of_another_size_is_copied_again(cache, tmp_path):
    copy = local_copy(cache, str(tmp_path / "scratch"), say=Said())
    (copy / FILES[0]).write_bytes(b"half")
    assert local_copy(cache, str(tmp_path / "scratch"), say=Said()) == copy
    assert same(cache, copy)


def test_a_cache_prepared_anew_has_a_copy_of_its_own(cache, tmp_path):
    first = local_copy(cache, str(tmp_path / "scratch"), say=Said())
    (cache / "cache.json").write_text(json.dumps({"fingerprint": "second"}))
    second = local_copy(cache, str(tmp_path / "scratch"), say=Said())
    assert first != second and same(cache, first) and same(cache, second)


def test_a_variable_that_is_not_set_is_an_error_that_names_it(cache, monkeypatch):
    monkeypatch.delenv("NO_SUCH_SCRATCH", raising=False)
    with pytest.raises(ValueError, match=r"'dataset\.node_local' is \$NO_SUCH_SCRATCH/x.*NO_SUCH_SCRATCH is not set"):
        local_copy(cache, "$NO_SUCH_SCRATCH/x")
    with pytest.raises(ValueError, match="expected an absolute path"):
        local_copy(cache, "scratch")


def test_without_room_the_shared_cache_is_read_and_said_so(cache, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, node_local.MARGIN_BYTES))
    said = Said()
    assert local_copy(cache, str(tmp_path / "scratch"), say=said) == cache
    assert "256 MB free" in said[0] and str(cache) in said[0]
    assert not list(tmp_path.glob("scratch/*/*.npy"))


def test_a_disk_that_is_full_after_all_leaves_no_half_file(cache, tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    said = Said()
    assert local_copy(cache, str(tmp_path / "scratch"), say=said) == cache
    assert "No space left" in said[0]
    assert [file.name for file in tmp_path.glob("scratch/*/*")] in ([], [".lock"])


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(cache, tmp_path):
    (tmp_path / "file").touch()
    said = Said()
    assert local_copy(cache, str(tmp_path / "file"), say=said) == cache
    assert said


def test_a_copy_of_somebody_else_is_not_trusted(cache, tmp_path, monkeypatch):
    local_copy(cache, str(tmp_path / "scratch"), say=Said())
    monkeypatch.setattr(os, "getuid", lambda: -1)
    said = Said()
    assert local_copy(cache, str(tmp_path / "scratch"), say=said) == cache
    assert "somebody else" in said[0]


def job(cache, place, copied, answers):
    plain = shutil.copyfile

    def slow(source, target):
        copied.put(source.name)
        time.sleep(0.05)
        return plain(source, target)

    shutil.copyfile = slow
    copy = local_copy(cache, str(place), say=Said())
    answers.put(same(cache, copy) and copy != cache)


def test_of_several_jobs_at_once_one_copies_and_all_see_the_whole(cache, tmp_path):
    fork = multiprocessing.get_context("fork")
    copied, answers = fork.Queue(), fork.Queue()
    jobs = [fork.Process(target=job, args=(cache, tmp_path / "scratch", copied, answers)) for _ in range(4)]
    for process in jobs:
        process.start()
    assert [answers.get(timeout=20) for _ in jobs] == [True] * 4
    for process in jobs:
        process.join()
    assert sorted(copied.get(timeout=1) for _ in FILES) == sorted(FILES) and copied.empty()
