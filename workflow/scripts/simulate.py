"""Simulate one printed object.

in:   nothing
out:  an HDF5 file in the layout of RAISE-LPBF: 20 kFPS on-axis video of the melt pool, scan lines, laser settings
"""

from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.data.simulate import write_configured
from edgeloop.progress import progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "simulate")
settings = snakemake.params.simulate
name = snakemake.wildcards.object
record = write_configured(snakemake.output[0], name, settings, progress=progress)
logger.debug("%s", record)
logger.info(
    "%s: %d layers of %d scan lines, preset %s", name, settings["layers"], settings["lines"], settings["preset"]
)
