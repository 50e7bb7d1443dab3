"""Evaluate simple predictors, to which every network is compared.

in:   the training and validation splits of the crop cache
out:  RMSE of predicting the mean, and of ridge regression on intensity features
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log, predictors
from edgeloop.data.cache import open_split
from edgeloop.records import ok, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "predict")
folder = Path(snakemake.input[0]).parent
figures = predictors.evaluate(open_split(folder, "train"), open_split(folder, "validation"))
for name, figure in figures.items():
    logger.info(
        "%s: RMSE %.4f (speed %.0f mm/s, power %.1f W)",
        name,
        figure["val_rmse"],
        figure["val_rmse_speed_mm_s"],
        figure["val_rmse_power_w"],
    )
write_json(snakemake.output[0], ok(predictors=figures))
