"""A crop cache larger than memory is read as any other: under real limits on memory, which a copy of it would break.

And a training keeps the memory that its steps take and free.
"""

import os
import platform
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

CLIPS, LIMIT_MB = 6_000, 80
"""The clips take 154 MB."""

READ = """
    import hashlib, os, resource, sys
    import numpy as np
    folder, clips, limit, group, whole = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) << 20, sys.argv[4], sys.argv[5]
    if group:
        open(f"{group}/cgroup.procs", "w").write(str(os.getpid()))
    from edgeloop.data.cache import batches, open_split
    if group:
        # Written in here, so that what the kernel keeps of the file counts, too.
        with open(f"{folder}/train.clips.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (clips, 16, 41, 41)}
            np.lib.format.write_array_header_1_0(file, header)
            for number in range(clips):
                file.write(np.full((16, 41, 41), number % 251, np.uint8))
    else:
        used = int(open("/proc/self/status").read().partition("VmData:")[2].split()[0]) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
    split = open_split(folder, "train")
    if whole:
        np.array(split.clips)
    before, seen = int(open("/proc/self/io").read().partition("read_bytes: ")[2].split()[0]), 0
    for some, targets in batches(split, 64, rng=np.random.default_rng(1), reuse=True):
        assert (some[:, 0, 0, 0] == targets[:, 0] % 251).all() and (some[:, -1, -1, -1] == targets[:, 1] % 251).all()
        seen += len(some)
    after = int(open("/proc/self/io").read().partition("read_bytes: ")[2].split()[0])
    print(seen, after - before)
"""


def read(folder: Path, group: str = "", whole: str = "") -> subprocess.CompletedProcess:
    np.save(folder / "train.targets.npy", np.repeat(np.arange(CLIPS, dtype=np.float32), 2).reshape(-1, 2))
    arguments = [str(folder), str(CLIPS), str(LIMIT_MB), group, whole]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group whose processes have LIMIT_MB of memory together, with what the kernel keeps of their files."""
    root = Path("/sys/fs/cgroup")
    version_1 = root / "memory"
    folder = (version_1 if version_1.is_dir() else root) / f"edgeloop-test-{os.getpid()}"
    limits = ["memory.limit_in_bytes"] if version_1.is_dir() else ["memory.max"]
    try:
        folder.mkdir()
        for name in limits:
            (folder / name).write_text(str(LIMIT_MB << 20))
        if not version_1.is_dir():
            (folder / "memory.swap.max").write_text("0")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group with a limit on memory can be made here: {error}")
    yield folder
    folder.rmdir()


def test_an_epoch_completes_in_less_memory_than_the_cache_has_and_a_copy_of_it_does_not(group, tmp_path):
    found = read(tmp_path, str(group))
    assert found.returncode == 0, found.stderr
    clips, read_bytes = map(int, found.stdout.split())
    size = (tmp_path / "train.clips.npy").stat().st_size
    assert clips == CLIPS and size > 1.8 * (LIMIT_MB << 20)
    assert read_bytes < 2 * size  # the kernel's own reading ahead would make it a hundred times as much
    assert read(tmp_path, str(group), whole="yes").returncode == -signal.SIGKILL


def test_the_loader_itself_takes_memory_for_a_batch_and_not_for_the_cache(tmp_path):
    clips = np.lib.format.open_memmap(tmp_path / "train.clips.npy", "w+", np.uint8, (CLIPS, 16, 41, 41))
    for number, clip in enumerate(clips):
        clip[...] = number % 251
    clips.flush()
    found = read(tmp_path)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout.split()[0]) == CLIPS
    assert "MemoryError" in read(tmp_path, whole="yes").stderr


TRAIN = """
    import resource
    import numpy as np
    import torch
    from edgeloop.data.cache import Split
    from edgeloop.training import Settings, train

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def take(times):
        before = faults()
        for _ in range(times):
            torch.ones(16 << 20)
        return faults() - before

    rng = np.random.default_rng(0)
    clips = Split(rng.integers(0, 200, (4, 16, 41, 41), np.uint8), rng.random((4, 2), np.float32))
    genotype = {"architecture": {"family": "conv2d", "widths": [4]}, "precision": "fp32", "training": {"lr": 0.001}}
    asked = take(10)
    train(genotype, clips, clips, Settings(epochs=1))
    print(asked, take(1), take(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_training_keeps_the_memory_that_its_steps_take_and_free():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRAIN)], capture_output=True, text=True, timeout=120, check=True
    )
    before, first, later = map(int, done.stdout.split())
    # Ten times 64 MB, which the kernel has cleared ten times before, and once or twice by now.
    assert before > 8 * first
    assert later < 3 * first
