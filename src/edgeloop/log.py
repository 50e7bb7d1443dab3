"""What a stage says: one line on the terminal, the whole story in its log file."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def start(file: str | Path, stage: str) -> logging.Logger:
    """A logger for the stage `stage`. INFO goes to the terminal, everything and any traceback to `file`.

    An exception that ends the script is shown on the terminal by its message alone.
    """
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger(f"edgeloop.{stage}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter(f"{stage:>9}  %(message)s"))
    story = logging.FileHandler(file, mode="w")
    story.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [terminal, story]

    def report(kind, error, trace):
        story.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, str(error), (), (kind, error, trace)))
        print(f"{stage:>9}  {kind.__name__}: {error}\n           The whole story: {file}", file=sys.stderr)

    sys.excepthook = report
    return logger


def trained(logger: logging.Logger, name: str, record: Mapping[str, Any]) -> None:
    """Say what the training of the network `name` has come to, from its train record."""
    if record["status"] == "failed":
        logger.info("%s: failed: %s", name, record["reason"])
    elif record["val_rmse"] is None:
        logger.info("%s: not trained, for latency only", name)
    else:
        logger.info(
            "%s: RMSE %.4f (speed %.0f mm/s, power %.1f W), %.0f s%s",
            name,
            record["val_rmse"],
            record["val_rmse_speed_mm_s"],
            record["val_rmse_power_w"],
            record["training_s"],
            _pace(record),
        )


def _pace(record: Mapping[str, Any]) -> str:
    """How fast the training was, and what limits it: making the batches, or computing on them."""
    reached = ", ".join(
        f"{name} {record[f'{name}_samples_per_s']:,.0f}"
        for name in ("loader", "network")
        if record.get(f"{name}_samples_per_s")
    )
    return f" at {record['samples_per_s']:,.0f} samples/s ({reached} alone)" if reached else ""
