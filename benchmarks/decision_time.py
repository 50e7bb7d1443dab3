"""What a generation's decision costs as a search grows: seconds to propose a pool, and to choose from it.

The results are random networks of config/spaces/meltpool.yaml with made-up losses and latencies, eight times as many
of them screened as trained. Nothing is trained, exported or measured.

    python benchmarks/decision_time.py [--results 100,300,1000,2000,5000] [--strategy gp-ehvi] [--rounds 3] [--json OUT]
"""

import argparse
import json
import math
import os
import resource
import statistics
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from tabulate import tabulate

from edgeloop import config
from edgeloop.records import Genotype, architecture_id, candidate_id
from edgeloop.search import decide
from edgeloop.search.results import Knowledge, Result, Screened

ROOT = Path(__file__).parents[1]
BUDGETS = {"device": {"latency_ms": 0.3}}


def made_up(genotype: Genotype) -> tuple[float, float]:
    """A loss and a latency in ms."""
    genes = genotype["architecture"]
    area = genes["frames"] * genes["pixels"] ** 2
    latency = 1e-5 * area * (1.0 + 3.0 * (genes["family"] != "conv2d"))
    return 0.1 + 0.05 * math.log(1e5 / area) ** 2 + 0.01 * abs(math.log(genotype["training"]["lr"] / 3e-3)), latency


def history(results: int) -> tuple[Knowledge, list[Genotype]]:
    """A search with so many results, and a pool to choose from."""
    space = config.load_space(ROOT / "config/spaces/meltpool.yaml")
    rng = np.random.default_rng(0)
    seen = {candidate_id(genotype): genotype for genotype in (space.sample(rng) for _ in range(8 * results))}
    screened = {
        architecture_id(genotype): Screened(
            {**genotype, "training": {}}, {"device": {"latency_ms": made_up(genotype)[1], "peak_memory_mb": 1.0}}
        )
        for genotype in seen.values()
    }
    trained = [
        Result(name, number // 8, genotype, made_up(genotype), max(0.0, made_up(genotype)[1] / 0.3 - 1))
        for number, (name, genotype) in enumerate(list(seen.items())[:results])
    ]
    pool = list(seen.values())[results : results + 64]
    known = Knowledge(
        space=space,
        results=trained,
        short=(),
        tried=frozenset(result.candidate for result in trained),
        screened=screened,
        earlier=(),
        objectives=("latency_ms",),
        budgets=BUDGETS,
        device="device",
    )
    return known, pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="100,300,1000,2000,5000")
    parser.add_argument("--strategy", default="gp-ehvi")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    asked = parser.parse_args()
    rows = []
    for results in map(int, asked.results.split(",")):
        known, pool = history(results)
        seconds = []
        for round_ in range(asked.rounds):
            settings = {"name": asked.strategy, "options": {}, "seed": round_, "generation": results}
            begin = time.perf_counter()
            decide.propose(known, count=64, **settings)
            middle = time.perf_counter()
            decide.choose(known, pool, count=8, screening=True, **settings)
            seconds.append((middle - begin, time.perf_counter() - middle))
        propose_s, choose_s = (statistics.median(column) for column in zip(*seconds, strict=True))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            {
                "results": results,
                "propose_s": propose_s,
                "choose_s": choose_s,
                "decision_s": propose_s + choose_s,
                "ms_per_result": 1000 * (propose_s + choose_s) / results,
                "peak_mb": peak_mb,
            }
        )
    print(f"{asked.strategy}, a pool of 64, 8 of them chosen; one core; medians of {asked.rounds}")
    print(tabulate([list(row.values()) for row in rows], list(rows[0]), floatfmt=".2f", intfmt=","))
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
