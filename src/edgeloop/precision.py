"""Precisions: the numbers that a network computes in on the device, and how good it is in them."""

from collections.abc import Mapping
from typing import Any

PRECISIONS = ("fp32", "fp16", "int8")
"""All networks are trained alike. What is not fp32 is made of the trained network by the export, see
`edgeloop.conversion`."""
QUALITY = ("val_rmse", "val_rmse_speed", "val_rmse_power", "val_rmse_speed_mm_s", "val_rmse_power_w")


def tolerances(parity: Mapping[str, Any]) -> dict[str, float]:
    """By how much a device's outputs may differ from the expected ones, by precision: the config's `parity`."""
    return {"fp32": parity["tolerance"], "fp16": parity["tolerance_fp16"], "int8": parity["tolerance_int8"]}


def deployed(train: Mapping[str, Any], export: Mapping[str, Any]) -> dict[str, Any]:
    """The training record `train` with the quality of what is deployed: wherever networks are compared, it is this.

    In fp32 that is PyTorch's, as it stands in the record. A network that was converted has its own, of the very file
    that runs on the device: the record `export` has it.
    """
    return {**train, **{figure: export[figure] for figure in QUALITY if figure in export}}
