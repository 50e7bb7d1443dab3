"""Train the candidates of a pack side by side, each in a process of its own.

in:   their genotypes, the training and validation splits of the crop cache, and the checkpoints to go on from, if any
out:  a folder with {candidate}.json and {candidate}.pt of each, as `train` makes them

What is finished is kept in .stash-train beside it until all are: the next attempt trains only the rest.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import attempts, log, packing
from edgeloop.progress import progress
from edgeloop.records import digest, failed, read_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "train")
target, pack = Path(snakemake.output[0]), snakemake.wildcards.pack
candidates = {entry["candidate"]: entry["genotype"] for entry in map(read_json, snakemake.input.genotypes)}
rung = snakemake.wildcards.get("rung")
starts = {Path(file).parent.name: file for file in snakemake.input.starts if file.endswith(".pt")}
made_of = (snakemake.params.training, snakemake.params.code, read_json(snakemake.input.cache))
stash = packing.Stash(
    target.with_name(f".stash-{target.name}"),
    {candidate: digest([*made_of, genotype]) for candidate, genotype in candidates.items()},
)


def train():
    from edgeloop import compute, training
    from edgeloop.data.cache import open_split
    from edgeloop.data.node_local import local_copy

    settings = training.Settings(**snakemake.params.training)
    folder = Path(snakemake.input.train[0]).parent
    folder = local_copy(folder, snakemake.config["dataset"]["node_local"], say=logger.info)
    splits = open_split(folder, "train"), open_split(folder, "validation")

    def one(candidate, folder):
        begin, made, start = time.time(), folder / f"{candidate}.pt", starts.get(candidate)
        leg = training.Leg(start, int(rung), made) if rung else training.Leg(start)
        weights = None if rung else made
        record = training.train(
            candidates[candidate], *splits, settings, leg=leg, weights_path=weights, progress=progress
        )
        if record["status"] == "failed":
            made.touch()
        return {**record, "work": [begin, time.time()]}

    def told(candidate, record):
        log.trained(logger, f"{candidate} {candidates[candidate]['architecture']['family']}", record)

    def on_gpu():
        return compute.pick_device(settings.device).type == "cuda"

    return packing.run(
        stash,
        one,
        processes=len(candidates) if packing.ask(on_gpu) else max(1, snakemake.threads // settings.threads),
        cramped=lambda record: "ran out of memory" in record.get("reason", ""),
        finished=told,
        logs=Path(snakemake.log[0]).with_suffix(""),
    )


if reason := attempts.given_up(snakemake.resources.attempt):
    now = time.time()
    stash.give_up(lambda member: failed(f"training {reason}", candidate=member, work=[now, now]), ".pt")
elif missing := train():
    raise RuntimeError(packing.incomplete(pack, "trained", missing, len(candidates)))
stash.hand_over(target)
