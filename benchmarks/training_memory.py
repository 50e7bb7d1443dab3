"""What a training gains by keeping the memory that its steps free (`edgeloop.compute.keep_freed_memory`).

Each network is trained for an epoch in processes of its own, in turns as glibc has it and as edgeloop does, on clips of
noise. A row: the median of the processor's seconds, the share of them that the kernel took, and the peak of the memory,
as glibc has it and as edgeloop does; whether both came to the same error, to the last bit.

    python benchmarks/training_memory.py [--clips 1024] [--batch-size 32] [--repetitions 3] [--networks NAME ...]
        [--json OUT]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from families import NETWORKS
from headline import FULL
from tabulate import tabulate

from edgeloop import training
from edgeloop.data.cache import Split
from edgeloop.records import write_json

SWIN = "swin3d, 28 px"
"""Of which a tenth as many clips tell enough."""
ASKED = {**NETWORKS, SWIN: {"family": "swin3d", "pixels": 28, "patch": [2, 4, 4], **FULL}}
COMPARED = ("conv2d", "conv3d", "per frame, conv", "per frame, gru", "moments", "motion", "motion, largest", SWIN)


def one(name: str, kept: bool, clips: int, batch_size: int) -> dict[str, Any]:
    """What a training in this process takes, which has done nothing else before."""
    if not kept:
        training.keep_freed_memory = lambda: None
    rng = np.random.default_rng(0)
    data = Split(rng.integers(0, 255, (clips, 16, 41, 41), np.uint8), rng.random((clips, 2), np.float32))
    recipe = {"lr": 1e-3, "batch_size": batch_size}
    genotype = {"architecture": ASKED[name], "precision": "fp32", "training": recipe}
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    record = training.train(genotype, data, Split(data.clips[:32], data.targets[:32]), training.Settings(epochs=1))
    taken, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF)
    if record["status"] != "ok":
        raise RuntimeError(f"{name}: {record['reason']}")
    kernel = after.ru_stime - before.ru_stime
    return {"cpu_s": taken, "kernel": kernel / taken, "peak_mb": after.ru_maxrss / 1024, "val_rmse": record["val_rmse"]}


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The medians of all repetitions, by whether memory was kept."""
    found: dict[str, list[dict[str, Any]]] = {"glibc": [], "kept": []}
    clips = options.clips // 10 if name == SWIN else options.clips
    for _ in range(options.repetitions):
        for way, results in found.items():
            command = [sys.executable, __file__, "--one", name, way, str(clips), str(options.batch_size)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    medians = {
        way: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for way, results in found.items()
    }
    same = len({result["val_rmse"] for results in found.values() for result in results}) == 1
    return {"network": name, "clips": clips, **medians, "same_error": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(ASKED), default=COMPARED, metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, way, clips, batch_size = options.one
        print(json.dumps(one(name, way == "kept", int(clips), int(batch_size))))
        return
    rows = [measured(name, options) for name in options.networks]
    table = [
        [
            row["network"],
            f"{row['glibc']['cpu_s']:.2f}",
            f"{row['glibc']['kernel']:.0%}",
            f"{row['kept']['cpu_s']:.2f}",
            f"{row['kept']['kernel']:.0%}",
            f"{row['glibc']['cpu_s'] / row['kept']['cpu_s']:.2f}",
            f"{row['glibc']['peak_mb']:.0f}",
            f"{row['kept']['peak_mb']:.0f}",
            "yes" if row["same_error"] else "NO",
        ]
        for row in rows
    ]
    heads = ["network", "s", "kernel", "kept: s", "kernel", "times faster", "MB", "kept: MB", "same error"]
    print(f"An epoch of {options.clips} clips (of {SWIN}: a tenth), batches of {options.batch_size}")
    print(tabulate(table, heads, disable_numparse=True, colalign=["left", *["right"] * 8]))
    if options.json:
        write_json(options.json, {"batch_size": options.batch_size, "networks": rows})


if __name__ == "__main__":
    main()
