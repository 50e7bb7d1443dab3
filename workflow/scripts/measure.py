"""Measure one candidate on the device.

in:   its ONNX file, the device's enrolment, and a fixed set of clips with their targets
out:  latency with raw samples, and whether the device computes what was trained; an earlier failure is passed on

An unreachable device is an error, never a candidate's failure.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import edge
from edgeloop import log, parity
from edgeloop.records import failed, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "measure")
device = edge.Device.from_config(snakemake.wildcards.device, snakemake.params.device)
name, export = snakemake.wildcards.candidate, read_json(snakemake.input.export)
begin = time.time()
if export["status"] == "failed":
    record = failed(export["reason"], device=device.name)
else:
    count, precision = len(export["outputs"]), export.get("precision", "fp32")
    tolerance = snakemake.params.tolerances[precision]
    with (
        edge.connect(device, patient=True) as session,
        parity.first_clips(snakemake.input.parity, count) as clips,
    ):
        (record,) = session.measure(
            [edge.Job(Path(snakemake.input.model), clips=clips, batch_sizes=snakemake.params.batch_sizes)],
            edge.Timing(**snakemake.params.timing),
            enrolment=read_json(snakemake.input.enrolment),
        )
    if record["status"] == "ok":
        targets = np.load(snakemake.input.parity_targets)[:count]
        record |= parity.compare(
            record.pop("outputs"), export["outputs"], targets, pytorch=export.get("outputs_pytorch")
        )
        if not record["parity_max_abs_difference"] <= tolerance:
            other = "PyTorch" if precision == "fp32" else f"onnxruntime here of the network in {precision}"
            reason = (
                f"{device.name} computes something else than {other}: outputs differ by up to "
                f"{record['parity_max_abs_difference']:.2g}, expected at most {tolerance:g}"
            )
            record |= {"status": "failed", "reason": reason}
write_json(snakemake.output[0], {**record, "work": [begin, time.time()]})
if record["status"] == "failed":
    logger.info("%s on %s: failed: %s", name, device.name, record["reason"])
else:
    logger.info(
        "%s on %s: %.4g ms (p50 %.4g, p99 %.4g)",
        name,
        device.name,
        record["latency_ms"],
        record["latency_p50_ms"],
        record["latency_p99_ms"],
    )
for remark in edge.remarks(record):
    logger.info("%s on %s: %s", name, device.name, remark)
