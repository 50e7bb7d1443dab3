"""Archive the run.

in:   the summary, and with it all that the folder of the run holds
out:  a zip file from which the run can be checked, decided anew, trained anew and continued
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import config as configuration
from edgeloop import log
from edgeloop.archive import pack

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "archive")
root = Path(snakemake.scriptdir).resolve().parents[1]
target = Path(snakemake.output[0])
made = pack.pack(
    target,
    run=Path.cwd(),
    root=root,
    config=snakemake.config,
    space=configuration.find(snakemake.config["space"], Path.cwd(), root),
)
logger.info("%s: %d files, %.1f MB, sha256 %s", target, made["files"], made["bytes"] / 1e6, made["sha256"])
