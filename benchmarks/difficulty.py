"""How hard the simulated data are: the share of the constant predictor's error that a network leaves.

What is known of the real RAISE-LPBF files is that the best of some 9,000 plain 3D networks (two 5x5x5
convolutions, max pooling, two dense layers) leaves 37 % of the constant predictor's MSE, in units of 400 mm/s
and 80 W (abadiet/RAISE-LPBF). This script simulates a preset, trains such a network, scaled down to what a
CPU manages, and prints its share; `--nuisance` scales the spreads that a label does not explain, which is how
`realistic` was calibrated.

Usage: python benchmarks/difficulty.py [--preset realistic] [--nuisance 1.0] [--lines 8000] [--epochs 10]
[--json OUT]
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from simulated_clips import simulated
from torch import nn

from edgeloop import predictors, records
from edgeloop.data.cache import TARGET_SCALE, Split, batches
from edgeloop.data.simulate import PRESETS, Simulation

UNITS = np.array([400.0, 80.0])  # mm/s and W, of the published result sheet
REAL_SHARE = 0.37
LABEL_MEAN = torch.tensor([1.0, 1.0])


def scaled(simulation: Simulation, nuisance: float) -> Simulation:
    """The simulation with all that makes equal labels look different made `nuisance` times as large."""
    spreads = ("absorptivity_spread", "diffusivity_spread", "gain_spread", "size_spread", "glow_spread")
    return replace(simulation, **{name: nuisance * getattr(simulation, name) for name in spreads})


def network(channels: tuple[int, int]) -> nn.Module:
    """Two 5x5x5 convolutions with max pooling and two dense layers, for clips of 16 x 41 x 41."""
    first, second = channels
    return nn.Sequential(
        nn.Conv3d(1, first, 5, stride=2, padding=2),
        nn.BatchNorm3d(first),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(first, second, 5, padding=2),
        nn.BatchNorm3d(second),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.LazyLinear(64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )


def _video(clips: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(np.asarray(clips)).float() / 255).sqrt_()[:, None]


def _error(model: nn.Module, split: Split) -> np.ndarray:
    """Mean squared error per target in the published units."""
    model.eval()
    with torch.inference_mode():
        predicted = torch.cat([model(_video(clips)) + LABEL_MEAN for clips, _ in batches(split, 128, rng=None)])
    difference = (predicted.numpy() - split.targets) * np.array(TARGET_SCALE) / UNITS
    return (difference**2).mean(0)


def train(split: Split, validation: Split, channels: tuple[int, int], epochs: int, batch: int) -> list[np.ndarray]:
    """The validation error after each epoch."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = network(channels)
    model(torch.zeros(2, 1, *split.clips.shape[1:]))
    steps = epochs * -(-len(split) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    scale = torch.tensor(np.array(TARGET_SCALE) / UNITS, dtype=torch.float32)
    errors = []
    for _ in range(epochs):
        model.train()
        for clips, targets in batches(split, batch, rng=rng):
            video = torch.rot90(_video(clips), int(rng.integers(4)), (-2, -1))
            video = video.flip(-1) if rng.integers(2) else video
            loss = (((model(video) - (torch.from_numpy(targets) - LABEL_MEAN)) * scale) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        errors.append(_error(model, validation))
    return errors


def measure(arguments: argparse.Namespace) -> dict:
    simulation = scaled(PRESETS[arguments.preset], arguments.nuisance)
    with tempfile.TemporaryDirectory() as name:
        training, validation = simulated(Path(name), simulation, arguments.lines, arguments.seed)
        constant = ((training.targets.mean(0) - validation.targets) * np.array(TARGET_SCALE) / UNITS) ** 2
        simple = predictors.evaluate(training, validation)["ridge"]
        start = time.perf_counter()
        errors = train(training, validation, tuple(arguments.channels), arguments.epochs, arguments.batch)
        train_s = time.perf_counter() - start
    best = min(errors, key=lambda error: error.mean())
    constant = constant.mean(0)
    ridge = np.array([simple["val_rmse_speed_mm_s"], simple["val_rmse_power_w"]]) ** 2 / UNITS**2
    return {
        "schema_version": 1,
        "preset": arguments.preset,
        "nuisance": arguments.nuisance,
        "train_clips": len(training),
        "validation_clips": len(validation),
        "constant_mse": constant.tolist(),
        "ridge_mse": ridge.tolist(),
        "network_mse": best.tolist(),
        "network_share": float(best.mean() / constant.mean()),
        "ridge_share": float(ridge.mean() / constant.mean()),
        "real_share": REAL_SHARE,
        "train_s": train_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="realistic")
    parser.add_argument("--nuisance", type=float, default=1.0, help="factor on the spreads of the preset (default 1)")
    parser.add_argument("--lines", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channels", type=int, nargs=2, default=(8, 16), help="of the two convolutions (real: 64 128)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(arguments)
    print(
        f"preset {row['preset']}, nuisance x {row['nuisance']},"
        f" {row['train_clips']} training clips, {row['train_s']:.0f} s"
    )
    print(f"{'predictor':<12} {'MSE speed':>10} {'MSE power':>10} {'share':>7}")
    for name, share in (("constant", 1.0), ("ridge", row["ridge_share"]), ("network", row["network_share"])):
        speed, power = row[f"{name}_mse"]
        print(f"{name:<12} {speed:>10.3f} {power:>10.3f} {share:>7.3f}")
    print(f"{'real data':<12} {'':>10} {'':>10} {row['real_share']:>7.3f}")
    if arguments.json:
        records.write_json(arguments.json, row)


if __name__ == "__main__":
    main()
