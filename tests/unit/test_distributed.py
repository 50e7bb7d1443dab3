"""A training in several processes: real ones, which come to the figures of one.

What they compute on is observed inside them, by hooks that `sitecustomize` sets before anything runs: it is
also how one of them is made to fail.
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeloop import distributed, training
from edgeloop.data.cache import open_split
from edgeloop.models import registry
from edgeloop.records import candidate_id
from edgeloop.training import Settings

CONV2D = {"family": "conv2d", "widths": [8, 16]}
ARCHITECTURES = [
    CONV2D,
    {"family": "conv3d", "widths": [4, 8], "depths": [2], "frames": 8},
    {"family": "swin3d", "embed": 6, "depths": [2], "heads": [3], "mlp_ratio": 1, "patch": [8, 8, 8], "head": [16]}
    | {"dropout": 0.0, "stochastic_depth": 0.0},
]
TRAIN, VALIDATION = range(1, 48), range(101, 132)
"""The clips; each shows its number in the centre, which no symmetry moves."""
HANGS_AFTER_S = 60

OBSERVE = """
    import atexit, json, os, signal
    if "WORLD_SIZE" in os.environ or "SLURM_PROCID" in os.environ:
        import torch
        signal.alarm(120)  # what hangs is to fail
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
        seen = {"train": [], "validation": [], "dropped": []}

        def look(module, inputs):
            if type(module).__name__ == "Preprocess":
                numbers = inputs[0][:, 0, 20, 20].tolist()
                seen["train" if module.training else "validation"].append(numbers)
                if module.training:
                    fault(rank, len(seen["train"]))

        def look_after(module, inputs, output):
            if type(module).__name__ == "Dropout" and module.training:
                seen["dropped"].append((output == 0).flatten().tolist())

        def fault(rank, step):
            FAULT

        torch.nn.modules.module.register_module_forward_pre_hook(look)
        torch.nn.modules.module.register_module_forward_hook(look_after)
        atexit.register(lambda: json.dump(seen, open(f"{os.path.dirname(__file__)}/seen.{rank}.json", "w")))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A crop cache: discs of a radius by speed, of counts by power."""
    folder, rng = tmp_path_factory.mktemp("cache"), np.random.default_rng(0)
    y, x = np.mgrid[-20:21, -20:21]
    for name, numbers in (("train", TRAIN), ("validation", VALIDATION)):
        targets = rng.uniform(0.4, 1.6, (len(numbers), 2)).astype(np.float32)
        inside = np.hypot(x, y)[None] < 3 + 8 * targets[:, 0, None, None]
        frames = (inside * (40 + 120 * targets[:, 1, None, None]))[:, None] + rng.uniform(0, 20, (1, 16, 41, 41))
        frames[:, :, 20, 20] = np.array(numbers)[:, None]
        np.save(folder / f"{name}.clips.npy", frames.astype(np.uint8))
        np.save(folder / f"{name}.targets.npy", targets)
    return folder


@pytest.fixture
def observe(tmp_path, monkeypatch):
    """Observe the processes to come, and on the way run `fault` in each, given its rank and step from 1."""

    def start(fault: str = "pass") -> None:
        (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(OBSERVE).replace("FAULT", fault))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return start


def seen(folder: Path, processes: int) -> list[dict]:
    """What each process had: the numbers of its clips by batch, and what its dropout dropped."""
    return [json.loads((folder / f"seen.{rank}.json").read_text()) for rank in range(processes)]


def genotype(architecture: dict = CONV2D, **genes) -> dict:
    """At this learning rate rounding stays near 1e-8; Adam makes ever more of it, the more so the larger its steps."""
    return {"architecture": architecture, "precision": "fp32", "training": {"lr": 5e-4, "batch_size": 10, **genes}}


def alone(candidate: dict, folder: Path, settings: Settings) -> dict:
    return training.train(candidate, open_split(folder, "train"), open_split(folder, "validation"), settings)


def figures(record: dict) -> dict[str, float]:
    """RMSEs in units of [900 mm/s, 215 W], and losses."""
    rmses = {key: record[key] for key in ("val_rmse", "val_rmse_speed", "val_rmse_power", "train_rmse")}
    return rmses | {f"{key} {e['epoch']}": value for e in record["history"] for key, value in e.items()}


def assert_same(record: dict, single: dict) -> None:
    assert record["status"] == single["status"] == "ok" and record.keys() == single.keys()
    assert figures(record) == pytest.approx(figures(single), rel=0, abs=1e-6)
    for key in ("val_rmse_speed_mm_s", "val_rmse_power_w"):
        assert record[key] == pytest.approx(single[key], rel=1e-6)
    same = ("candidate", "seed", "device", "epochs", "versions", "parameters", "macs", "best_epoch", "training_clips")
    assert [record[key] for key in same] == [single[key] for key in same]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a["family"])
def test_two_processes_come_to_the_figures_of_one_and_see_each_clip_once(architecture, folder, tmp_path, observe):
    candidate, settings, weights = genotype(architecture), Settings(epochs=2), tmp_path / "out/weights.pt"
    observe()
    record = distributed.train(candidate, folder, settings, processes=2, weights_path=weights)
    assert_same(record, alone(candidate, folder, settings))
    assert record["processes"] == 2
    shares = seen(tmp_path, 2)
    for share in shares:
        assert [len(batch) for batch in share["train"][:4]] == [5] * 4 and len(share["train"]) == 10
    assert sorted(len(share["train"][4]) for share in shares) == [3, 4]
    for epoch in (slice(0, 5), slice(5, 10)):
        assert sorted(n for share in shares for batch in share["train"][epoch] for n in batch) == list(TRAIN)
    # Zero is the blank clip by which the multiply-accumulates are counted.
    validated = [n for share in shares for batch in share["validation"] for n in batch if n]
    assert sorted(validated) == sorted([*VALIDATION] * settings.epochs)

    network = training.load(architecture, weights)
    assert type(network) is type(registry.build(architecture))
    errors = training.evaluate(network, open_split(folder, "validation"), frames=registry.input_frames(architecture))
    assert errors["rmse"] == pytest.approx(record["val_rmse"], abs=1e-6)
    assert [file.name for file in weights.parent.iterdir()] == ["weights.pt"]


def test_averages_and_intensity_are_those_of_one_process_in_two(folder, tmp_path):
    candidate, settings = genotype(ema=0.2, intensity=0.1), Settings(epochs=2)
    record = distributed.train(candidate, folder, settings, processes=2, weights_path=tmp_path / "weights.pt")
    assert_same(record, alone(candidate, folder, settings))


def test_a_hopeless_training_ends_in_all_processes(folder, tmp_path):
    candidate, settings = genotype(), Settings(epochs=4, early_stopping={"after": [0.25], "above": [0.01]})
    record = distributed.train(candidate, folder, settings, processes=2, weights_path=tmp_path / "weights.pt")
    assert record["status"] == "failed" and record["stopped_early"]["epoch"] == 1 and len(record["history"]) == 1


def test_legs_in_two_processes_come_to_the_weights_of_an_unbroken_training_in_two(folder, tmp_path):
    candidate, settings = genotype(CONV2D | {"dropout": 0.3}), Settings(epochs=3)
    unbroken, legs, checkpoint = (tmp_path / name for name in ("unbroken.pt", "legs.pt", "checkpoint.pt"))
    distributed.train(candidate, folder, settings, processes=2, weights_path=unbroken)
    half = training.Leg(until=1, checkpoint=checkpoint)
    record = distributed.train(candidate, folder, settings, leg=half, processes=2, weights_path=None)
    assert len(record["history"]) == 1 and not legs.exists()
    rest = training.Leg(start=checkpoint)
    distributed.train(candidate, folder, settings, leg=rest, processes=2, weights_path=legs)
    assert legs.read_bytes() == unbroken.read_bytes()


def test_a_process_without_a_row_of_the_last_batch_changes_nothing(folder, tmp_path, observe):
    candidate, settings = genotype(), Settings(epochs=2, clips=22)
    observe()
    record = distributed.train(candidate, folder, settings, processes=3, weights_path=tmp_path / "weights.pt")
    assert_same(record, alone(candidate, folder, settings))
    shares = seen(tmp_path, 3)
    assert sorted(len(share["train"][2]) for share in shares) == [0, 1, 1]
    first, second = (sorted(n for s in shares for b in s["train"][e] for n in b) for e in (slice(0, 3), slice(3, 6)))
    assert first == second and len(set(first)) == len(first) == 22


def test_a_training_that_diverges_gives_a_failed_record_and_dropout_differs_between_processes(
    folder, tmp_path, observe
):
    candidate, settings = genotype(CONV2D | {"dropout": 0.5}, lr=1e37), Settings(epochs=2)
    observe()
    record = distributed.train(candidate, folder, settings, processes=2, weights_path=tmp_path / "weights.pt")
    single = alone(candidate, folder, settings)
    assert record["status"] == "failed" and record["reason"] == single["reason"] and "diverged" in record["reason"]
    assert record.keys() == single.keys() and not (tmp_path / "weights.pt").exists()
    first, second = (share["dropped"][0] for share in seen(tmp_path, 2))
    assert len(first) == len(second) and 0 < sum(first) < len(first) and first != second


def test_a_lack_of_memory_in_one_process_gives_a_failed_record(folder, tmp_path, observe):
    observe("if rank == '1' and step == 8: torch.empty(2**55)")
    begin, candidate = time.monotonic(), genotype()
    record = distributed.train(candidate, folder, Settings(epochs=3), processes=2, weights_path=tmp_path / "w.pt")
    assert record["status"] == "failed" and time.monotonic() - begin < HANGS_AFTER_S
    assert record["reason"].startswith(f"training of {candidate_id(candidate)} ran out of memory: ")
    assert len(record["history"]) == 1 and record["processes"] == 2 and not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("if rank == '1' and step == 3: raise KeyError('the lens')", r"failed: rank 1 on .*: KeyError: 'the lens'"),
        ("if rank == '1' and step == 3: os.kill(os.getpid(), 9)", "one that was killed|a process that was killed"),
    ],
    ids=["raises", "killed"],
)
def test_a_process_that_fails_ends_all_and_says_why(fault, message, folder, tmp_path, observe):
    observe(fault)
    begin, weights = time.monotonic(), tmp_path / "out/weights.pt"
    with pytest.raises(RuntimeError, match=message) as caught:
        distributed.train(genotype(), folder, Settings(epochs=3), processes=2, weights_path=weights)
    assert time.monotonic() - begin < HANGS_AFTER_S and not list(weights.parent.iterdir())
    assert candidate_id(genotype()) in str(caught.value)
    if "raise" in fault:
        assert "in fault" in caught.value.__notes__[0]


def test_no_process_outlives_the_one_that_started_them(folder, tmp_path, observe):
    observe(f"open('{tmp_path}/pid.' + rank, 'w').write(str(os.getpid())); import time; time.sleep(600)")
    script = (
        "import sys; from edgeloop import distributed, training; "
        "distributed.train(eval(sys.argv[1]), sys.argv[2], training.Settings(epochs=1), processes=2, weights_path='w')"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, repr(genotype()), str(folder)], cwd=tmp_path)
    files, end = [tmp_path / "pid.0", tmp_path / "pid.1"], time.monotonic() + HANGS_AFTER_S
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{file.read_text()}").exists() for file in files):
        assert time.monotonic() < end
        time.sleep(0.05)


SRUN = """
    # Starts the tasks of a step with the variables that Slurm sets, as srun on one machine.
    import os, subprocess, sys
    options = dict(word.lstrip("-").split("=") for word in sys.argv[1:] if word.startswith("--") and "=" in word)
    tasks, per_node = int(options["ntasks"]), int(options["ntasks-per-node"])
    assert tasks == per_node * int(options["nodes"]) and options["kill-on-bad-exit"] == "1", options
    command = sys.argv[sys.argv.index(sys.executable):]
    step = {"SLURM_STEP_ID": "1", "SLURM_NTASKS": str(tasks), "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
    assert not {*step, "SLURM_PROCID"} & {*os.environ}, "a step inside another takes its variables for options"
    places = [{"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n % per_node)} for n in range(tasks)]
    started = [subprocess.Popen(command, env={**os.environ, **step, **place}) for place in places]
    sys.exit(max(task.wait() for task in started))
"""


def test_several_nodes_of_a_slurm_allocation_come_to_the_same_figures(folder, tmp_path, observe, monkeypatch):
    candidate, settings, srun = genotype(), Settings(epochs=1), tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(f"#!{sys.executable}\n{textwrap.dedent(SRUN)}")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("SLURM_PROCID", "0")
    observe()
    record = distributed.train(candidate, folder, settings, processes=2, nodes=2, weights_path=tmp_path / "weights.pt")
    assert_same(record, alone(candidate, folder, settings))
    assert sorted(n for share in seen(tmp_path, 2) for batch in share["train"] for n in batch) == list(TRAIN)


def test_what_cannot_be_started_is_refused_in_plain_words(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def start(**options) -> None:
        distributed.train(genotype(), folder, Settings(epochs=1), weights_path=tmp_path / "w.pt", **options)

    with pytest.raises(ValueError, match="cannot share 3 processes among 2 nodes"):
        start(processes=3, nodes=2)
    with pytest.raises(RuntimeError, match=r"a training on 2 nodes runs in a Slurm allocation, and this is none"):
        start(processes=2, nodes=2)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="cannot start srun: it is not installed here"):
        start(processes=2, nodes=2)
    with pytest.raises(RuntimeError, match=r"neither torchrun's .* nor srun's"):
        distributed.whereabouts({"RANK": "0"})
    assert not list(tmp_path.iterdir())


def test_the_processes_of_a_slurm_step_know_where_to_meet():
    step = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    one = distributed.whereabouts({**step, "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2"})
    assert [one[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == ["5", "8", "1", "10.0.0.7"]
    other = distributed.whereabouts({**step, "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "3"})
    assert one["MASTER_PORT"] != other["MASTER_PORT"] and 1024 < int(one["MASTER_PORT"]) < 32768


@pytest.mark.parametrize(("local", "devices", "step", "index"), [(1, 2, False, 1), (1, 1, True, 0), (0, 1, False, 0)])
def test_each_process_takes_a_cuda_device_of_its_own(local, devices, step, index, monkeypatch):
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    if step:
        monkeypatch.setenv("SLURM_LOCALID", str(local))
    assert distributed.cuda_index(local, devices) == index


def test_more_processes_than_cuda_devices_are_refused(monkeypatch):
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    with pytest.raises(RuntimeError, match="process 1 of its node has no CUDA device: the node shows 1"):
        distributed.cuda_index(1, 1)


def test_parts_are_all_rows_in_order_and_of_equal_size():
    for rows in (0, 1, 2, 9, 10):
        parts = [distributed.Team(rank, 3, torch.device("cpu"), print).part(rows) for rank in range(3)]
        assert [n for part in parts for n in range(rows)[part]] == list(range(rows))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1
