"""Export one candidate to ONNX.

in:   its genotype, its weights, and a fixed set of clips; for another precision than fp32 the training split, to
      calibrate on, and the validation split
out:  one self-contained ONNX file, and the export record with the outputs on the clips that a device has to come to; a
      failed training is passed on
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop import attempts, log
from edgeloop.records import failed, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "export")
candidate = read_json(snakemake.input.genotype)
train = read_json(snakemake.input.train)
model = Path(snakemake.output.model)
begin = time.time()
if train["status"] == "failed":
    record = failed(train["reason"])
elif reason := attempts.given_up(snakemake.resources.attempt):
    record = failed(f"export {reason}")
else:
    from edgeloop.export import export_candidate

    record = export_candidate(
        candidate["genotype"],
        train,
        snakemake.input.weights,
        model,
        parity_clips=np.load(snakemake.input.parity),
        data=Path(snakemake.input.train_clips[0]).parent,
    )
if record["status"] == "failed":
    model.touch()
    logger.info("%s: failed: %s", candidate["candidate"], record["reason"])
else:
    logger.debug(
        "%s: %d bytes, |PyTorch - ONNX| <= %.1e", candidate["candidate"], record["bytes"], record["max_abs_difference"]
    )
write_json(snakemake.output.record, {**record, "work": [begin, time.time()]})
