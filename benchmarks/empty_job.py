"""A job without work, for benchmarks/scale.py only: in its copy of the workflow it is train, export and measure.

in:   nothing that it reads
out:  the record of its stage with the figures that later stages look at, made up from the candidate's id, and an empty
      file for weights or model, which `compare` passes over
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.records import ok, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log.start(snakemake.log[0], snakemake.rule)
begin = time.time()
merit = 0.1 + int(snakemake.wildcards.candidate, 16) / 16**12  # smaller is better in both objectives: a front of one
figures = {
    "train": {
        "val_rmse": merit,
        "val_rmse_speed_mm_s": 900 * merit,
        "val_rmse_power_w": 215 * merit,
        "parameters": 1,
        "macs": 1,
        "training_s": 0.0,
    },
    "export": {"export_s": 0.0},
    "measure": {"latency_ms": merit, "latency_p50_ms": merit, "latency_p99_ms": merit},
}
record, *others = snakemake.output
for file in others:
    Path(file).touch()
write_json(record, ok(**figures[snakemake.rule], work=[begin, time.time()]))
