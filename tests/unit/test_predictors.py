"""The simple predictors are fair: ridge learns what intensity says, mean nothing, and neither sees the
validation targets.
"""

import numpy as np
import pytest

from edgeloop import predictors
from edgeloop.data.cache import Split, open_split
from edgeloop.data.prepare import prepare
from edgeloop.data.simulate import PRESETS, write_object


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("predictors")
    sizes = dict(seed=1, layers=4, lines=150, frame_px=64, min_frames=16, max_frames=18)
    write_object(folder / "D01.h5", "D01", simulation=PRESETS["clear"], **sizes)
    split = {"validation": {"share": 0.25, "by": "layer"}}
    prepare(
        [folder / "D01.h5"],
        folder / "cache",
        source="test",
        lit_threshold=100,
        clips_per_line=1,
        split=split,
        seed=1,
    )
    return open_split(folder / "cache", "train"), open_split(folder / "cache", "validation")


def test_ridge_learns_what_mean_cannot(splits):
    scores = predictors.evaluate(*splits)
    assert scores["ridge"]["val_rmse"] < 0.6 * scores["mean"]["val_rmse"]
    assert scores["mean"]["val_rmse"] == pytest.approx(splits[1].targets.std(0).mean(), rel=0.1)


def test_the_joint_figure_is_that_of_both_normalised_targets(splits):
    for score in predictors.evaluate(*splits).values():
        parts = (score["val_rmse_speed_mm_s"] / 900) ** 2 + (score["val_rmse_power_w"] / 215) ** 2
        assert score["val_rmse"] == pytest.approx(np.sqrt(parts / 2))


def test_validation_targets_do_not_reach_the_prediction(splits):
    train, validation = splits
    shifted = Split(validation.clips, validation.targets + np.float32(10))
    before, after = predictors.evaluate(train, validation), predictors.evaluate(train, shifted)
    for name in ("mean", "ridge"):
        assert after[name]["val_rmse"] == pytest.approx(10, rel=0.1)
    assert before["ridge"]["alpha"] == after["ridge"]["alpha"]


def test_features_do_not_depend_on_the_scan_direction(splits):
    clips = splits[1].clips[:20]
    turned = np.rot90(clips, axes=(2, 3))
    assert predictors.features(turned) == pytest.approx(predictors.features(clips), rel=1e-3, abs=1e-3)


def test_an_all_dark_or_all_bright_clip_has_finite_features():
    clips = np.stack([np.zeros((16, 41, 41)), np.full((16, 41, 41), 255)]).astype(np.uint8)
    assert np.isfinite(predictors.features(clips)).all()


def test_an_empty_split_is_named(splits):
    empty = Split(splits[0].clips[:0], splits[0].targets[:0])
    with pytest.raises(ValueError, match="validation split is empty"):
        predictors.evaluate(splits[0], empty)
