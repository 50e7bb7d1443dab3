"""Export the proposed architectures with untrained weights, to be timed.

in:   the proposals of a generation
out:  a folder with one ONNX file for each architecture whose latency is not yet known, or a record of why there is none
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.drafting import draft_all
from edgeloop.progress import progress
from edgeloop.records import read_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "draft")
architectures = read_json(snakemake.input[0])["to_screen"]
failures = draft_all(architectures, Path(snakemake.output[0]), processes=snakemake.threads, progress=progress)
for name, reason in failures.items():
    logger.info("%s cannot be exported: %s", name, reason)
logger.debug("%d architectures exported by %s", len(architectures) - len(failures), sys.executable)
