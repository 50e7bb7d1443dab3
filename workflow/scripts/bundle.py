"""Pack what is deployed of a finalist.

in:   all records and models of its trainings, the devices' enrolments, the crop cache's record, the fixed clips
out:  one zip, of the training with the lowest validation RMSE; an empty file when every training failed
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop import bundle, bundle_card, finalists, log
from edgeloop.records import read_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "bundle")
name, target = snakemake.wildcards.candidate, Path(snakemake.output[0])
seeds = finalists.by_seed(snakemake.input.records)[name]
chosen, genotype = finalists.choose(seeds), read_json(snakemake.input.genotype)["genotype"]
if chosen is None:
    target.write_bytes(b"")
    logger.info("%s: no bundle, every training failed: %s", name, finalists.failure(seeds[min(seeds)]))
else:
    bundle.write(
        target,
        bundle_card.build(
            name,
            genotype,
            seeds,
            chosen=chosen,
            enrolments={Path(file).stem: read_json(file) for file in snakemake.input.enrolments},
            cache=read_json(snakemake.input.cache),
        ),
        model=next(Path(file) for file in snakemake.input.models if Path(file).parent.name == str(chosen)).read_bytes(),
        clips=np.load(snakemake.input.parity, mmap_mode="r"),
        outputs=np.asarray(seeds[chosen]["export"]["outputs"]),
        tolerance=snakemake.params.tolerances[genotype["precision"]],
    )
    logger.info("%s: %s, %d bytes, seed %d", name, target, target.stat().st_size, chosen)
