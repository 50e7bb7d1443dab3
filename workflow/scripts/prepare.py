"""Turn raw video into the crop cache that training reads.

in:   HDF5 files in the layout of RAISE-LPBF
out:  uint8 clips, targets and an index for each split, a fixed set of clips for checks on devices, and cache.json,
      which counts by name what could not be used
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.data.prepare import prepare
from edgeloop.progress import progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "prepare")
split = dict(snakemake.params.split)
record = prepare(
    [Path(file) for file in snakemake.input],
    Path(snakemake.output.cache).parent,
    source=snakemake.params.source,
    lit_threshold=snakemake.params.lit_threshold,
    clips_per_line=snakemake.params.clips_per_line,
    split={part: split[part] for part in ("validation", "test")},
    seed=split["seed"],
    progress=progress,
)
for part, counts in record["splits"].items():
    logger.info("%s: %d clips of %d scan lines in %d layers", part, counts["clips"], counts["lines"], counts["layers"])
for problem, found in record["problems"].items():
    logger.info("left out, %s: %d, for example %s", problem, found["count"], ", ".join(found["examples"][:2]))
for message in record["messages"]:
    logger.info("%s", message)
