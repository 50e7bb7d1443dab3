"""Training: the same candidate gives the same weights, bad candidates give records, good ones learn."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeloop.data.cache import Split
from edgeloop.evaluation import evaluate, rmse
from edgeloop.progress import progress
from edgeloop.recipe import Average, Recipe, brightened, turned
from edgeloop.records import candidate_id, canonical_json
from edgeloop.training import Leg, Settings, load, train

ARCHITECTURES = [
    {"family": "conv2d", "widths": [8, 16], "dropout": 0.2},
    {"family": "conv3d", "widths": [4, 8], "frames": 8, "downsample": "max_pool"},
    {"family": "conv2d_temporal", "widths": [4, 8], "temporal": "gru", "frames": 8},
    {"family": "swin3d", "embed": 12, "depths": [2], "heads": [3], "mlp_ratio": 1, "patch": [8, 8, 8]},
]
TIMES = ("samples_per_s", "loader_samples_per_s", "network_samples_per_s", "training_s")


def split(n: int, seed: int) -> Split:
    """Clips whose brightness and size say the targets: a disc of radius by speed, of counts by power."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0.4, 1.6, (n, 2)).astype(np.float32)
    y, x = np.mgrid[-20:21, -20:21]
    inside = np.hypot(x, y)[None] < 3 + 8 * targets[:, 0, None, None]
    frames = (inside * (40 + 120 * targets[:, 1, None, None]))[:, None] + rng.uniform(0, 20, (n, 16, 1, 1))
    return Split(frames.astype(np.uint8), targets)


TRAIN, VALIDATION = split(101, 0), split(40, 1)


def genotype(architecture: dict = ARCHITECTURES[0], **training) -> dict:
    return {"architecture": architecture, "precision": "fp32", "training": {"lr": 4e-3, "batch_size": 10, **training}}


def untimed(record: dict) -> str:
    return canonical_json({key: value for key, value in record.items() if key not in TIMES})


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a["family"])
def test_a_candidate_trains_to_the_same_weights_twice_whatever_ran_before(architecture, tmp_path):
    settings, candidate = Settings(epochs=2), genotype(architecture)
    first = train(candidate, TRAIN, VALIDATION, settings, weights_path=tmp_path / "one.pt")
    torch.manual_seed(12345)
    np.random.seed(1)
    train(genotype(lr=1e-3), TRAIN, VALIDATION, Settings(epochs=1))
    second = train(candidate, TRAIN, VALIDATION, settings, weights_path=tmp_path / "two.pt")
    assert first["status"] == "ok"
    assert untimed(first) == untimed(second)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


@pytest.mark.parametrize(
    "recipe",
    [{}, {"optimizer": "adam", "schedule": "step", "step_size": 1}, {"ema": 0.1, "intensity": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a["family"])
def test_a_training_in_legs_comes_to_the_weights_of_an_unbroken_one(architecture, recipe, tmp_path):
    settings, candidate = Settings(epochs=4), genotype(architecture, **recipe)
    unbroken = train(candidate, TRAIN, VALIDATION, settings, weights_path=tmp_path / "unbroken.pt")
    start, records = None, []
    for until in (1, 3, None):
        leg = Leg(start, until, tmp_path / f"{until}.checkpoint")
        records.append(train(candidate, TRAIN, VALIDATION, settings, leg=leg, weights_path=tmp_path / "legs.pt"))
        start = leg.checkpoint
        train(genotype(lr=1e-3), TRAIN, VALIDATION, Settings(epochs=1))  # something else runs in between
    assert untimed(records[-1]) == untimed(unbroken)
    assert (tmp_path / "legs.pt").read_bytes() == (tmp_path / "unbroken.pt").read_bytes()
    assert [len(record["history"]) for record in records] == [1, 3, 4]
    assert records[0]["history"] == unbroken["history"][:1]
    assert records[0]["training_s"] < records[1]["training_s"] < records[2]["training_s"]


@pytest.mark.parametrize(
    ("candidate", "settings"),
    [
        (genotype(lr=1e-3), Settings(epochs=2)),
        (genotype(), Settings(epochs=2, seed=1)),
        (genotype(), Settings(epochs=3)),
        (genotype(), Settings(epochs=2, clips=50)),
    ],
    ids=["candidate", "seed", "epochs", "clips"],
)
def test_a_checkpoint_of_another_training_is_refused(candidate, settings, tmp_path):
    leg = Leg(until=1, checkpoint=tmp_path / "checkpoint")
    train(genotype(), TRAIN, VALIDATION, Settings(epochs=2), leg=leg)
    with pytest.raises(ValueError, match=r"is the checkpoint of .*, not of .*: remove it and run again"):
        train(candidate, TRAIN, VALIDATION, settings, leg=Leg(start=tmp_path / "checkpoint"))


def test_a_leg_beyond_the_training_is_refused():
    with pytest.raises(ValueError, match=r"cannot stop a training of 2 epochs after epoch 3.*raise training\.epochs"):
        train(genotype(), TRAIN, VALIDATION, Settings(epochs=2), leg=Leg(until=3))


def test_another_seed_and_another_gene_give_another_training():
    settings = Settings(epochs=1)
    first = train(genotype(), TRAIN, VALIDATION, settings)
    reseeded = train(genotype(), TRAIN, VALIDATION, replace(settings, seed=1))
    decayed = train(genotype(weight_decay=0.04), TRAIN, VALIDATION, settings)
    assert len({r["val_rmse"] for r in (first, reseeded, decayed)}) == 3
    assert len({r["seed"] for r in (first, reseeded, decayed)}) == 3


def test_training_leaves_the_process_as_it_found_it():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(genotype(), TRAIN, VALIDATION, Settings(epochs=1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_small_network_learns_what_the_clips_show():
    candidate = genotype({"family": "conv2d", "widths": [8, 16, 16]}, lr=1e-2)
    record = train(candidate, split(400, 2), VALIDATION, Settings(epochs=15))
    constant = rmse(np.ones_like(VALIDATION.targets), VALIDATION.targets)["rmse"]
    assert record["val_rmse"] < constant / 3


def test_the_record_says_what_the_best_epochs_weights_do(tmp_path):
    candidate, path = genotype(schedule="step", step_size=1, gamma=0.5), tmp_path / "weights.pt"
    record = train(candidate, TRAIN, VALIDATION, Settings(epochs=3), weights_path=path)
    errors = evaluate(load(candidate["architecture"], path), VALIDATION, frames=16)
    assert errors["rmse"] == pytest.approx(record["val_rmse"], rel=1e-5)
    assert errors["rmse_power_w"] == pytest.approx(record["val_rmse_power_w"], rel=1e-5)
    assert record["val_rmse_speed_mm_s"] == pytest.approx(900 * record["val_rmse_speed"])
    joint = np.sqrt((record["val_rmse_speed"] ** 2 + record["val_rmse_power"] ** 2) / 2)
    assert record["val_rmse"] == pytest.approx(joint)
    assert record["val_rmse"] == min(epoch["val_rmse"] for epoch in record["history"])
    assert record["history"][record["best_epoch"] - 1]["val_rmse"] == record["val_rmse"]
    assert [epoch["lr"] for epoch in record["history"]] == [4e-3, 2e-3, 1e-3]
    assert record["candidate"] == candidate_id(candidate) and record["training_clips"] == 101
    assert (
        record["processes"] == 1
        and record["device"].partition(": ")[2]
        and record["parameters"] > 0
        and record["macs"] > 0
    )


def test_weights_of_another_architecture_are_refused(tmp_path):
    train(genotype(), TRAIN, VALIDATION, Settings(epochs=1), weights_path=tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt does not fit the architecture"):
        load(ARCHITECTURES[1], tmp_path / "weights.pt")


def test_a_limit_on_clips_is_kept():
    record = train(genotype(), TRAIN, VALIDATION, Settings(epochs=1, clips=31))
    assert record["training_clips"] == 31


@pytest.mark.parametrize("clips", [11, 21])
def test_a_last_batch_of_one_clip_does_not_break_batch_normalisation(clips):
    architecture = {"family": "conv2d", "widths": [4, 4, 4, 4, 4, 4], "stem_stride": 4}
    record = train(genotype(architecture), TRAIN, VALIDATION, Settings(epochs=2, clips=clips))
    assert record["status"] == "ok" and len(record["history"]) == 2


def test_a_candidate_that_diverges_gives_a_failed_record_and_no_weights(tmp_path):
    path = tmp_path / "weights.pt"
    record = train(genotype(lr=1e30), TRAIN, VALIDATION, Settings(epochs=3), weights_path=path)
    assert record["status"] == "failed"
    assert record["reason"].startswith(f"training of {candidate_id(genotype(lr=1e30))} diverged: the ")
    assert "epoch 1" in record["reason"] and not path.exists()
    canonical_json(record)


def test_a_candidate_that_needs_more_memory_than_there_is_gives_a_failed_record():
    script = """
        import resource, sys
        import numpy as np
        from edgeloop.data.cache import Split
        from edgeloop.training import Settings, train
        split = Split(np.zeros((64, 16, 41, 41), np.uint8), np.ones((64, 2), np.float32))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
        architecture = {"family": "swin3d", "embed": 96, "depths": [2], "heads": [3], "pixels": 96}
        genotype = {"architecture": architecture, "precision": "fp32", "training": {"lr": 0.001, "batch_size": 64}}
        record = train(genotype, split, split, Settings(epochs=1))
        print(record["status"], record["reason"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("failed training of ") and "ran out of memory: " in found.stdout


def test_any_other_error_is_an_error():
    with pytest.raises(ValueError, match="cannot train on 101 clips and validate on 0"):
        train(genotype(), TRAIN, split(0, 0), Settings(epochs=1))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"training\.device is cuda, but PyTorch finds no CUDA device"):
            train(genotype(), TRAIN, VALIDATION, Settings(epochs=1, device="cuda"))


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({}, "training needs the gene 'lr'"),
        ({"lr": 0.1, "momentum": 0.9}, "training has no gene 'momentum': its genes are lr, weight_decay"),
        ({"lr": 0.0}, "training: lr is 0.0: expected at least 1e-09"),
        ({"lr": 0.1, "optimizer": "sgd"}, "training: optimizer is 'sgd': expected one of 'adamw', 'adam'"),
        ({"lr": 0.1, "batch_size": 8.0}, "training: batch_size is 8.0: expected a whole number"),
        ({"lr": float("nan")}, "training: lr is nan"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_plain_words(genes, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_genes(genes)


def test_augmentation_gives_each_of_the_eight_symmetries_and_nothing_else():
    clip = np.random.default_rng(0).integers(0, 256, (1, 2, 41, 41), dtype=np.uint8)
    symmetries = {np.rot90(c, k, (-2, -1)).tobytes() for c in (clip, clip[..., ::-1]) for k in range(4)}
    batch = turned(np.repeat(clip, 16, axis=0), np.random.default_rng(1))
    assert {one.tobytes() for one in batch} == symmetries
    assert len(turned(clip, np.random.default_rng(1))) == 1


def test_intensity_makes_each_clip_brighter_or_darker_by_a_factor_of_its_own():
    clips = torch.full((400, 2, 3, 3), 100, dtype=torch.uint8)
    clips[:, 1] = 250
    bright = brightened(clips, 0.1, np.random.default_rng(0))
    assert bright.dtype == torch.uint8 and bright.shape == clips.shape
    counts = bright[:, 0, 0, 0].double()
    assert (bright[:, 0] == bright[:, 0, :1, :1]).all()  # all pixels of a clip alike
    assert counts.min() >= np.floor(100 * np.exp(-0.1)) and counts.max() <= np.ceil(100 * np.exp(0.1))
    assert counts.min() < 93 and counts.max() > 107 and abs(counts.mean() - 100) < 1
    # Cut off, not wrapped around; one pixel at a time, too, which processors convert in another way.
    assert (bright[counts > 103, 1] == 255).all()
    rng, white = np.random.default_rng(0), torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
    assert min(brightened(white, 1.0, rng).item() for _ in range(100)) >= np.floor(255 * np.exp(-1.0))
    assert torch.equal(brightened(clips, 0.0, np.random.default_rng(0)), clips)


def test_a_part_of_a_batch_is_brightened_as_in_the_whole():
    clips = torch.full((11, 2, 3, 3), 100, dtype=torch.uint8)
    whole = brightened(clips, 0.5, np.random.default_rng(1))
    for low, high in ((0, 4), (4, 4), (4, 11)):
        part = brightened(clips[low:high], 0.5, np.random.default_rng(1), first=low, batch=11)
        assert torch.equal(part, whole[low:high])


def test_averages_follow_the_weights_by_their_horizon_and_forget_the_beginning():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    average = Average(network, horizon=20)
    values, weights = np.random.default_rng(0).normal(size=300), []
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].running_mean.fill_(value)
            network[1].num_batches_tracked.fill_(step)
        average.update()
        weights = [each * (1 - max(1 / 20, 9 / (10 + step))) for each in weights] + [max(1 / 20, 9 / (10 + step))]
    expected = float(np.dot(weights, values))
    assert sum(weights) == pytest.approx(1, abs=1e-6)  # nothing is left of the weights of the start
    assert average.model[0].weight.item() == pytest.approx(expected, abs=1e-5)
    assert average.model[1].running_mean.item() == pytest.approx(expected, abs=1e-5)
    assert average.model[1].num_batches_tracked == 300
    assert network[0].weight.item() == pytest.approx(values[-1])


def test_what_is_validated_and_kept_are_the_averages(tmp_path, monkeypatch):
    networks = []
    monkeypatch.setattr("edgeloop.training.Average", lambda *given: networks.append(Average(*given)) or networks[-1])
    candidate, path = genotype(ema=0.5), tmp_path / "weights.pt"
    record = train(candidate, TRAIN, VALIDATION, Settings(epochs=1), weights_path=path)
    kept = load(candidate["architecture"], path)
    assert evaluate(kept, VALIDATION, frames=16)["rmse"] == pytest.approx(record["val_rmse"], rel=1e-5)
    averages = networks[0].model.state_dict()
    assert all(torch.equal(value, averages[key]) for key, value in kept.state_dict().items())
    # 101 clips are ten steps of ten clips: the last clip, alone, makes none.
    assert networks[0].horizon == 0.5 * 10 and networks[0].steps == 10


def test_the_record_says_what_batches_and_steps_alone_would_reach(tmp_path):
    leg = Leg(until=1, checkpoint=tmp_path / "checkpoint")
    first = train(genotype(), TRAIN, VALIDATION, Settings(epochs=3), leg=leg)
    both = train(genotype(), TRAIN, VALIDATION, Settings(epochs=3), leg=Leg(start=leg.checkpoint))
    for record in (first, both):
        clips = record["training_clips"] * len(record["history"])
        loader_s, network_s = clips / record["loader_samples_per_s"], clips / record["network_samples_per_s"]
        # One after the other they are nearly all of the training; the rest is the bookkeeping of an epoch.
        assert 0.7 < (loader_s + network_s) * record["samples_per_s"] / clips <= 1.001


def test_a_part_of_a_batch_turns_as_it_does_in_the_whole():
    batch = np.random.default_rng(0).integers(0, 256, (11, 2, 41, 41), dtype=np.uint8)
    whole = turned(batch, np.random.default_rng(1))
    for low, high in ((0, 4), (4, 4), (4, 11)):
        part = turned(batch[low:high], np.random.default_rng(1), first=low, batch=11)
        assert np.array_equal(part, whole[low:high])


def test_a_log_gets_a_line_for_each_share_of_the_work_and_the_last(capsys):
    assert list(progress(range(7), total=7, label="train ab", unit="epoch", note=lambda: "fine", lines=3)) == list(
        range(7)
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"train ab: epoch {n}/7" for n in (3, 5, 7)]
    assert all(line.endswith(", fine") for line in lines)
