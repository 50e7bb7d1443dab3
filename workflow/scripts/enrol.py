"""Enrol a device: is all there, what is it, and how fast is it at rest?

in:   the device's entry in the config
out:  fingerprint, runtime and the reference model's latency at rest, to which every later latency is related
"""

from typing import TYPE_CHECKING

import edge
from edgeloop import devices, log
from edgeloop.records import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "enrol")
device = edge.Device.from_config(snakemake.wildcards.device, snakemake.params.device)
record = edge.enrol(device)
devices.check_enrolment(device.name, snakemake.config["devices"][device.name], record)
write_json(snakemake.output[0], record)
fingerprint = record["fingerprint"]
logger.info("%s: %s, onnxruntime %s", device.name, fingerprint["cpu_model"], fingerprint["onnxruntime"])
for message in record["messages"]:
    logger.info("%s: %s", device.name, message)
