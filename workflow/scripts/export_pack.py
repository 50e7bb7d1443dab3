"""Export the candidates of a pack to ONNX: what the exporter needs to warm up is paid once for several of them.

in:   their genotypes, the folder that `train_pack` has made, a fixed set of clips, training and validation splits
out:  a folder with {candidate}.json and {candidate}.onnx of each, as `export` makes them

What is finished is kept in .stash-export beside it until all are: the next attempt exports only the rest.
"""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop import attempts, log, packing
from edgeloop.records import digest, failed, read_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "export")
target, pack, trained = Path(snakemake.output[0]), snakemake.wildcards.pack, Path(snakemake.input.train)
candidates = {entry["candidate"]: entry["genotype"] for entry in map(read_json, snakemake.input.genotypes)}


def made_of(candidate):
    files = (trained / f"{candidate}.json", trained / f"{candidate}.pt", Path(snakemake.input.parity))
    return digest([snakemake.params.code, *(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)])


stash = packing.Stash(target.with_name(".stash-export"), {candidate: made_of(candidate) for candidate in candidates})


def export():
    from edgeloop.export import export_candidate

    clips, data = np.load(snakemake.input.parity), Path(snakemake.input.train_clips[0]).parent

    def one(candidate, folder):
        begin, model = time.time(), folder / f"{candidate}.onnx"
        train, weights = read_json(trained / f"{candidate}.json"), trained / f"{candidate}.pt"
        if train["status"] == "failed":
            record = failed(train["reason"])
        else:
            record = export_candidate(candidates[candidate], train, weights, model, parity_clips=clips, data=data)
        if record["status"] == "failed":
            model.touch()
        return {**record, "work": [begin, time.time()]}

    def told(candidate, record):
        if record["status"] == "failed":
            logger.info("%s: failed: %s", candidate, record["reason"])
        else:
            logger.debug("%s: %d bytes", candidate, record["bytes"])

    return packing.run(
        stash,
        one,
        processes=snakemake.threads,
        workers=snakemake.threads,
        finished=told,
        logs=Path(snakemake.log[0]).with_suffix(""),
    )


if reason := attempts.given_up(snakemake.resources.attempt):
    now = time.time()
    stash.give_up(lambda member: failed(f"export {reason}", work=[now, now]), ".onnx")
elif missing := export():
    raise RuntimeError(packing.incomplete(pack, "exported", missing, len(candidates)))
stash.hand_over(target)
