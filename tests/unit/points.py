"""Takes points of a search space through everything that a run does with a candidate."""

from pathlib import Path

import numpy as np

from edgeloop import config
from edgeloop.data.cache import Split
from edgeloop.export import TOLERANCE, export
from edgeloop.models import registry
from edgeloop.training import Settings, load, train

ROOT = Path(__file__).parents[2]
STEPS, BATCH = 2, 4


def split(clips: int, seed: int) -> Split:
    """Spots whose size and brightness say the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0.4, 1.6, (clips, 2)).astype(np.float32)
    y, x = np.mgrid[-20:21, -20:21]
    distance = np.hypot(x, y) / (2 + 6 * targets[:, 0, None, None, None])
    counts = 150 * targets[:, 1, None, None, None] * np.exp(-(distance**2)) + rng.uniform(0, 10, (clips, 16, 41, 41))
    return Split(counts.clip(0, 255).astype(np.uint8), targets)


TRAIN, VALIDATION = split(STEPS * BATCH, 0), split(4, 1)


def draw(space: str, count: int, seed: int) -> list[dict]:
    """`count` genotypes of config/spaces/`space`.yaml."""
    drawn, rng = config.load_space(ROOT / f"config/spaces/{space}.yaml"), np.random.default_rng(seed)
    return [drawn.sample(rng) for _ in range(count)]


def train_and_export(genotype: dict, folder: Path) -> None:
    """Two steps of training, then export and a run in onnxruntime beside PyTorch; AssertionError where one fails."""
    architecture = genotype["architecture"]
    genotype = genotype | {"training": genotype["training"] | {"batch_size": BATCH}}
    trained = train(genotype, TRAIN, VALIDATION, Settings(epochs=1), weights_path=folder / "weights.pt")
    assert trained["status"] == "ok", (genotype, trained)
    model = load(architecture, folder / "weights.pt")
    frames = registry.input_frames(architecture)
    exported = export(model, folder / "model.onnx", frames=frames, clips=VALIDATION.clips)
    assert exported["status"] == "ok" and exported["max_abs_difference"] <= TOLERANCE, (genotype, exported)
