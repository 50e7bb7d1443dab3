"""Simulate one printed object.

in:   nothing
out:  an HDF5 file in the layout of RAISE-LPBF: 20 kFPS on-axis video of the melt pool, scan lines, laser settings
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.data.simulate import PRESETS, write_object
from edgeloop.progress import progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "simulate")
settings = snakemake.params.simulate
name = snakemake.wildcards.object
record = write_object(
    snakemake.output[0],
    name,
    seed=settings["seed"],
    layers=settings["layers"],
    lines=settings["lines"],
    frame_px=settings["frame_px"],
    min_frames=settings["min_frames"],
    max_frames=settings["max_frames"],
    simulation=replace(PRESETS[settings["preset"]], **settings["parameters"]),
    progress=progress,
)
logger.debug("%s", record)
logger.info(
    "%s: %d layers of %d scan lines, preset %s", name, settings["layers"], settings["lines"], settings["preset"]
)
