"""Training of one candidate: the same genotype on the same data gives the same weights, to the last bit.

Whatever is drawn at random (weights, order, augmentation, dropout) comes from a seed that the candidate's id and the
epoch give, whatever ran before in the process. So a training that stops after some epochs and goes on from its
checkpoint in another process comes to the weights of an unbroken one. On CUDA a few kernels have no deterministic
twin: there the last bits may differ.
"""

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeloop.compute import (
    ALONE,
    Alone,
    describe,
    deterministic,
    keep_freed_memory,
    out_of_memory,
    pick_device,
    seed_of,
)
from edgeloop.data.cache import Split, batches
from edgeloop.early_stopping import EarlyStopping
from edgeloop.evaluation import evaluate
from edgeloop.models import registry
from edgeloop.models.genes import checked, gene
from edgeloop.models.preprocess import standardise_targets
from edgeloop.pace import Pace
from edgeloop.precision import QUALITY
from edgeloop.recipe import Average, Recipe, brightened, make_optimizer, make_schedule, turned
from edgeloop.records import Genotype, atomic, candidate_id, failed, ok
from edgeloop.rmse import errors_of_mean

CHECK_EVERY = 16
"""Steps between two looks at the loss: on CUDA each look waits for the device."""


@dataclass(frozen=True)
class Settings:
    """What the config says of training. ValueError names the setting that is wrong.

    clips: how many training clips to use, None for all. early_stopping: also as the mapping that stands in the config.
    """

    epochs: int = gene(minimum=1)
    clips: int | None = gene(None, minimum=2)
    threads: int = gene(1, minimum=1)
    device: str = gene("auto", choices=("auto", "cpu", "cuda"))
    seed: int = gene(0, minimum=0)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = getattr(self, declared.name)
            if declared.type is not EarlyStopping:
                value = checked(declared.name, declared.type, value, declared.metadata)
            elif not isinstance(value, EarlyStopping):
                value = EarlyStopping(**value)
            object.__setattr__(self, declared.name, value)


@dataclass(frozen=True)
class Leg:
    """A part of a training, whose parts together come to what an unbroken training does, to the last bit.

    start: the checkpoint that the epochs before have left, None to begin with the first. until: the last epoch,
    None for all that the settings say. checkpoint: where to leave what the next part starts from.
    """

    start: str | Path | None = None
    until: int | None = None
    checkpoint: str | Path | None = None


class NotFiniteError(ArithmeticError):
    """The loss or the validation error became infinite or NaN."""


class HopelessError(Exception):
    """The training stops early. `figures` are those of its record."""

    def __init__(self, message: str, figures: dict[str, Any]):
        super().__init__(message)
        self.figures = figures


def train(
    genotype: Genotype,
    train: Split,
    validation: Split,
    settings: Settings,
    *,
    leg: Leg | None = None,
    weights_path: str | Path | None = None,
    progress: Callable[..., Iterator[int]] | None = None,
    team: Alone = ALONE,
) -> dict[str, Any]:
    """Train the candidate `genotype` and return its train record; `weights_path` gets the best epoch's weights.

    `leg` is the part of the training to do, the whole without it. The record is that of all epochs up to its end.

    A loss that is not finite, a lack of memory and a training that `settings.early_stopping` ends give a failed record
    (and no weights); anything else that goes wrong is an exception. `progress` is `edgeloop.progress.progress`, or
    None for silence. `team` is the processes that share the training: to use several, call
    `edgeloop.distributed.train`.

    `val_rmse` is over both targets in units of [900 mm/s, 215 W], `val_rmse_speed` and `val_rmse_power` are
    each target's, `..._mm_s` and `..._w` the same in physical units; all of the best epoch by `val_rmse`.
    `train_rmse` is of the last epoch, while its weights moved and its clips were augmented. `samples_per_s` is what
    training has reached, `loader_samples_per_s` and `network_samples_per_s` what batches and steps alone would.
    """
    architecture, recipe = genotype["architecture"], Recipe.from_genes(genotype["training"])
    frames, device = registry.input_frames(architecture), pick_device(settings.device)
    candidate = candidate_id(genotype)
    seed = seed_of(candidate, settings.seed)
    about: dict[str, Any] = {
        "candidate": candidate,
        "seed": seed,
        "device": describe(device),
        "processes": team.size,
        "epochs": settings.epochs,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    leg = leg or Leg()
    if (leg.until or settings.epochs) > settings.epochs:
        raise ValueError(
            f"cannot stop a training of {settings.epochs} epochs after epoch {leg.until}: expected an epoch within it; "
            "raise training.epochs"
        )
    history: list[dict[str, float]] = []
    keep_freed_memory()
    try:
        with deterministic(seed, settings.threads, device):
            model = registry.build(architecture)
            about |= registry.count(model, architecture)
            channels_last(model.to(device))
            figures, weights = _fit(
                model, frames, recipe, settings, train, validation, seed, history, leg, progress, candidate, team
            )
    except NotFiniteError as error:
        return failed(f"training of {candidate} diverged: {error}", **about, history=history)
    except HopelessError as error:
        reason = f"training of {candidate} was stopped early: {error}"
        return failed(reason, **about, **error.figures, history=history)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        record = failed(f"training of {candidate} ran out of memory: {said}", **about, history=history)
        team.abandon(record)
        return record
    if weights_path is not None:
        save_weights(weights, weights_path)
    return ok(**about, **figures, history=history)


def _fit(
    model: nn.Module,
    frames: int,
    recipe: Recipe,
    settings: Settings,
    train: Split,
    validation: Split,
    seed: int,
    history: list[dict[str, float]],
    leg: Leg,
    progress: Callable[..., Iterator[int]] | None,
    candidate: str,
    team: Alone,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The figures of the record and the best epoch's weights; `history` gets each epoch, those before `leg` first."""
    clips = min(len(train), settings.clips or len(train))
    if clips < 2 or not len(validation):
        raise ValueError(
            f"cannot train on {clips} clips and validate on {len(validation)}: expected at least 2 and 1; "
            "prepare more data or change the split"
        )
    targets = torch.from_numpy(np.array(train.targets))
    standardise_targets(model, targets.mean(0), targets.std(0).clamp_min(1e-3))
    # A last batch of one clip is left out: batch normalisation cannot learn from it.
    steps = clips // recipe.batch_size + (clips % recipe.batch_size > 1)
    average = Average(model, recipe.ema * settings.epochs * steps) if recipe.ema else None
    kept = average.model if average else model
    network = team.wrap(model)
    optimizer = make_optimizer(model, recipe)
    schedule, each_step = make_schedule(optimizer, recipe, settings.epochs * steps)
    scaler = torch.amp.GradScaler("cuda", enabled=next(model.parameters()).is_cuda)
    whose = f"{candidate} with seed {settings.seed} for {settings.epochs} epochs of {clips} clips"
    pace = Pace(next(model.parameters()).device)
    moving = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler, "pace": pace}
    if average:
        moving["average"] = average
    of_mean = errors_of_mean(train.targets, validation.targets)["rmse"]
    best: dict[str, Any] = {}
    weights: dict[str, Tensor] = {}
    train_rmse, before_s, in_training_s, start = 0.0, 0.0, 0.0, time.perf_counter()
    if leg.start is not None:
        done = _read_checkpoint(leg.start, moving, whose)
        best, weights, before_s, in_training_s = (done[key] for key in ("best", "weights", "s", "in_training_s"))
        history.extend(done["history"])

    def elapsed() -> float:
        return before_s + time.perf_counter() - start

    until = leg.until or settings.epochs
    epochs: Iterator[int] = iter(range(len(history) + 1, until + 1))
    if progress is not None:
        epochs = progress(
            epochs,
            total=until - len(history),
            label=f"train {candidate}",
            unit="epoch",
            note=lambda: f"val_rmse {history[-1]['val_rmse']:.4f}",
        )
    for epoch in epochs:
        began, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
        rng = np.random.default_rng([seed, epoch])
        # What random layers draw is each process's own.
        torch.manual_seed(seed_of(f"{candidate} {epoch} {team.rank}", settings.seed))
        pairs = batches(
            train,
            recipe.batch_size,
            rng=rng,
            frames=frames,
            shift=recipe.augment,
            limit=settings.clips,
            part=team.part,
            reuse=True,
        )
        each = schedule if each_step else None
        loss = _epoch(network, pairs, clips, recipe, optimizer, each, scaler, average, pace, rng, epoch, team)
        if not each_step:
            schedule.step()
        in_training_s += time.perf_counter() - began
        train_rmse = math.sqrt(loss)
        # In batches as in training: a network that has the memory to train has the memory to be validated.
        size = math.ceil(recipe.batch_size / team.size)
        errors = evaluate(kept, validation, frames=frames, batch_size=size, team=team)
        if not math.isfinite(errors["rmse"]):
            raise NotFiniteError(f"the validation error is {errors['rmse']} after epoch {epoch}")
        history.append({"epoch": epoch, "lr": lr, "train_loss": loss, "val_rmse": errors["rmse"]})
        if not best or errors["rmse"] < best["val_rmse"]:
            best = {"best_epoch": epoch} | {f"val_{key}": value for key, value in errors.items()}
            weights = {
                key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for key, value in kept.state_dict().items()
            }
        so_far = [each["val_rmse"] for each in history]
        if settings.early_stopping.hopeless(so_far, settings.epochs, of_mean):
            limit = of_mean * settings.early_stopping.limit(epoch, settings.epochs)
            stopped = {"epoch": epoch, "val_rmse": min(so_far), "limit": limit}
            raise HopelessError(
                f"its lowest validation RMSE after {epoch} of {settings.epochs} epochs is {min(so_far):.4f}, above "
                f"{limit:.4f} (predicting the mean: {of_mean:.4f})",
                {"stopped_early": stopped, "training_s": round(elapsed(), 3)},
            )
    training_s = elapsed()
    if leg.checkpoint is not None:
        done = {"best": best, "weights": weights, "history": history, "s": training_s, "in_training_s": in_training_s}
        _write_checkpoint(leg.checkpoint, moving, whose, done)
    figures = {
        **best,
        "train_rmse": train_rmse,
        "training_clips": clips,
        "samples_per_s": round(clips * until / in_training_s, 1),
        **pace.limits(clips * until),
        "training_s": round(training_s, 3),
    }
    return figures, weights


def _epoch(
    network: nn.Module,
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    clips_in_all: int,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    scaler: torch.amp.GradScaler,
    average: Average | None,
    pace: Pace,
    rng: np.random.Generator,
    epoch: int,
    team: Alone,
) -> float:
    """One pass over the training clips; the mean squared error per clip and target, as it was met.

    pairs: this process's part of each batch. clips_in_all: of all processes and batches.
    """
    device = next(network.parameters()).device
    layout = getattr(network, "layout", torch.contiguous_format)
    network.train()
    total, seen = torch.zeros((), dtype=torch.float64, device=device), 0
    sizes = [min(recipe.batch_size, clips_in_all - first) for first in range(0, clips_in_all, recipe.batch_size)]

    def augmented() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, (clips, targets) in zip(sizes, pairs, strict=True):
            yield turned(clips, rng, first=team.part(rows).start, batch=rows) if recipe.augment else clips, targets

    for step, (rows, (clips, targets)) in enumerate(zip(sizes, pace.loading(augmented()), strict=True), start=1):
        if rows < 2:
            continue
        begin = pace.begin(step)
        # As counts: a quarter of the bytes of floats. The network itself converts them.
        x = torch.from_numpy(clips).to(device, non_blocking=True)
        if recipe.intensity:
            x = brightened(x, recipe.intensity, rng, first=team.part(rows).start, batch=rows)
        x = x.contiguous(memory_format=layout)
        y = torch.from_numpy(targets).to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        # Half precision where it pays; on a CPU, and for the loss itself, single.
        with torch.autocast(device.type, torch.float16, enabled=scaler.is_enabled()):
            outputs = network(x)
        loss = team.loss(outputs.float(), y, rows)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average.update()
        if schedule is not None:
            schedule.step()
        pace.end(begin, rows)
        total += loss.detach() * rows
        seen += rows
        if step % CHECK_EVERY == 0 and not torch.isfinite(team.mean(total)):
            raise NotFiniteError(f"the loss is {team.mean(loss.detach()).item()} in epoch {epoch}, step {step}")
    mean = team.mean(total).item() / seen
    if not math.isfinite(mean):
        raise NotFiniteError(f"the loss is {team.mean(loss.detach()).item()} at the end of epoch {epoch}")
    return mean


def channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions with their channels last: up to twice as fast on a CPU, too."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])


def _write_checkpoint(path: str | Path, moving: Mapping[str, Any], whose: str, done: Mapping[str, Any]) -> None:
    """All that the epochs after depend on: the state of what moves in a training, and what is `done`."""
    states = {name: each.state_dict() for name, each in moving.items()}
    _save({"whose": whose, "done": dict(done), **states}, path)


def _read_checkpoint(path: str | Path, moving: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """Put `moving` into the state of the checkpoint, and return what was done; ValueError for another training's."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if checkpoint["whose"] != whose:
        raise ValueError(f"{path} is the checkpoint of {checkpoint['whose']}, not of {whose}: remove it and run again")
    for name, each in moving.items():
        each.load_state_dict(checkpoint[name])
    return checkpoint["done"]


def save_weights(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict so that equal weights give equal bytes."""
    _save(dict(weights), path)


def _save(what: Mapping[str, Any], path: str | Path) -> None:
    # Given a path, torch.save writes the file's name into the file.
    buffer = io.BytesIO()
    torch.save(what, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load(architecture: Mapping[str, Any], weights_path: str | Path) -> nn.Module:
    """The trained network, in evaluation mode, on the CPU; ValueError when the weights are of another one."""
    model = registry.build(architecture)
    try:
        model.load_state_dict(torch.load(weights_path, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise ValueError(f"{weights_path} does not fit the architecture {dict(architecture)}: {error}") from error
    return model.eval()


def initialise(genotype: Genotype, *, weights_path: str | Path) -> dict[str, Any]:
    """The record of a network that is not trained but measured for latency only: its quality is unknown, not bad."""
    architecture, candidate = genotype["architecture"], candidate_id(genotype)
    seed = seed_of(candidate, 0)
    with deterministic(seed, 1, torch.device("cpu")):
        model = registry.build(architecture)
        counts = registry.count(model, architecture)
    save_weights(model.state_dict(), weights_path)
    unknown = (*QUALITY, "training_s")
    return ok(candidate=candidate, seed=seed, trained=False, **counts, **dict.fromkeys(unknown))
