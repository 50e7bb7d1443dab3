"""Measure the latency of the proposed, untrained architectures on the device.

in:   their ONNX files, and the device's enrolment
out:  one measurement for each architecture
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import edge
from edgeloop import log
from edgeloop.records import failed, ok, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "screen")
proposals = read_json(snakemake.input.proposals)
drafts = Path(snakemake.input.drafts)
models = {name: drafts / f"{name}.onnx" for name in proposals["to_screen"]}
drafted = {name: file for name, file in models.items() if file.exists()}
found = {name: failed(read_json(drafts / f"{name}.failed.json")["reason"]) for name in models.keys() - drafted.keys()}
begin = time.time()
device = edge.Device.from_config(snakemake.wildcards.device, snakemake.params.device)
if drafted:
    with edge.connect(device, patient=True) as session:
        records = session.measure(
            [edge.Job(file) for file in drafted.values()],
            edge.Timing(**snakemake.params.timing),
            enrolment=read_json(snakemake.input.enrolment),
        )
    found |= dict(zip(drafted, records, strict=True))
write_json(
    snakemake.output[0],
    ok(device=device.name, architectures=dict(sorted(found.items())), work=[begin, time.time()]),
)
for name, record in found.items():
    for remark in edge.remarks(record):
        logger.info("%s on %s: %s", name, device.name, remark)
if found:
    budget_ms = snakemake.config["devices"][device.name]["budget_ms"]
    fits = sum(record["status"] == "ok" and record["latency_ms"] <= budget_ms for record in found.values())
    logger.info("%s: %d of %d new architectures meet the budget of %g ms", device.name, fits, len(found), budget_ms)
