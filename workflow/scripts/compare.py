"""Measure the front and the baselines once more, in one session, so that their ratio is fair.

in:   the history of the search, and the device's enrolment
out:  one measurement for each network compared
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import edge
from edgeloop import log
from edgeloop.records import ok, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "compare")
device = edge.Device.from_config(snakemake.wildcards.device, snakemake.params.device)
history = read_json(snakemake.input.history)
last = read_json(history["states"][-1])
models = {Path(file).parent.name: Path(file) for file in history["models"]}
compared = {
    name: file
    for name, file in models.items()
    if file.stat().st_size and (name in last["front"] or name not in last["candidates"])
}
begin = time.time()
with edge.connect(device, patient=True) as session:
    records = session.measure(
        [edge.Job(file) for file in compared.values()],
        edge.Timing(**snakemake.params.timing),
        enrolment=read_json(snakemake.input.enrolment),
    )
write_json(
    snakemake.output[0],
    ok(device=device.name, candidates=dict(zip(compared, records, strict=True)), work=[begin, time.time()]),
)
for name, record in zip(compared, records, strict=True):
    for remark in edge.remarks(record):
        logger.info("%s on %s: %s", name, device.name, remark)
logger.info("%s: %d networks side by side", device.name, len(compared))
