"""What giving up hopeless trainings saves and what it misses (`training.early_stopping`), in hindsight.

Networks drawn from a space are trained to the end; each rule is then applied to the errors that were recorded. Columns:
how many trainings it stops, the epochs that this saves as a share of all, and whom it stops by mistake: of the quarter
with the lowest final errors, and of the front (final error and multiply-accumulates, which stand for the latency);
`error` is the lowest final error that a stopped training came to, against the mean predictor's.

    python benchmarks/early_stopping.py [--space config/spaces/meltpool.yaml] [--preset realistic] [--networks 32]
        [--lines 2000] [--epochs 10] [--most-mmac 4] [--json OUT]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from simulated_clips import simulated
from tabulate import tabulate

from edgeloop import config, training
from edgeloop.data.simulate import PRESETS
from edgeloop.early_stopping import EarlyStopping
from edgeloop.models import registry
from edgeloop.progress import progress
from edgeloop.records import candidate_id, write_json
from edgeloop.rmse import errors_of_mean
from edgeloop.search import pareto

ROOT = Path(__file__).parents[1]
RULES = [
    EarlyStopping(after, above)
    for after, above in (
        ((0.3,), (1.0,)),
        ((0.3,), (0.95,)),
        ((0.3,), (0.9,)),
        ((0.3,), (0.8,)),
        ((0.5,), (0.95,)),
        ((0.5,), (0.9,)),
        ((0.5,), (0.8,)),
        ((0.5,), (0.7,)),
        ((0.3, 0.5), (0.95, 0.9)),
        ((0.3, 0.5), (0.9, 0.8)),
    )
]


def hindsight(rule: EarlyStopping, records: list[dict[str, Any]], of_mean: float) -> dict[str, Any]:
    """What `rule` would have done to trainings that ran to the end, given their records."""
    errors = [[epoch["val_rmse"] for epoch in record["history"]] for record in records]
    final = np.array([min(each) for each in errors])
    epochs = len(errors[0])
    stops = [next((k for k in range(1, epochs) if rule.hopeless(each[:k], epochs, of_mean)), epochs) for each in errors]
    stopped = np.array(stops) < epochs
    best = np.argsort(final)[: -(-len(final) // 4)]
    front = np.array(pareto.ranks([(error, record["macs"]) for error, record in zip(final, records, strict=True)])) == 0
    return {
        "after": list(rule.after),
        "above": list(rule.above),
        "stopped": int(stopped.sum()),
        "epochs_saved": 1 - sum(stops) / (epochs * len(stops)),
        "best_quarter": len(best),
        "best_quarter_stopped": int(stopped[best].sum()),
        "front": int(front.sum()),
        "front_stopped": int(stopped[front].sum()),
        "lowest_error_stopped": float(final[stopped].min() / of_mean) if stopped.any() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=ROOT / "config/spaces/meltpool.yaml")
    parser.add_argument("--preset", default="realistic")
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--most-mmac", type=float, default=1e6, help="leave larger networks out (default none)")
    parser.add_argument("--seed", type=int, default=0, help="of the networks that are drawn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    space, rng = config.load_space(options.space), np.random.default_rng(options.seed)
    drawn: dict[str, dict[str, Any]] = {}
    while len(drawn) < options.networks:
        genotype = space.sample(rng)
        if registry.size(genotype["architecture"])["macs"] > 1e6 * options.most_mmac:
            continue
        drawn[candidate_id(genotype)] = genotype
    settings = training.Settings(epochs=options.epochs, device="cpu")
    with tempfile.TemporaryDirectory() as name:
        splits = simulated(Path(name), PRESETS[options.preset], options.lines)
        genotypes = progress(list(drawn.values()), total=len(drawn), label="networks", unit="network")
        records = [training.train(genotype, *splits, settings) for genotype in genotypes]
        of_mean, clips = errors_of_mean(splits[0].targets, splits[1].targets)["rmse"], len(splits[0])
    good = [record for record in records if record["status"] == "ok"]
    rows = [hindsight(rule, good, of_mean) for rule in RULES]
    final = np.array([record["val_rmse"] for record in good]) / of_mean
    print(
        f"{len(good)} networks of {space.name}, {clips} clips of preset {options.preset}, {options.epochs} epochs; "
        f"{len(records) - len(good)} failed\nfinal errors against the mean predictor's {of_mean:.3f}: lowest "
        f"{final.min():.2f}, median {np.median(final):.2f}, highest {final.max():.2f}\n"
    )
    heads = ["after", "above", "stopped", "epochs saved", "of the best quarter", "of the front", "error"]
    cells = [
        [
            ", ".join(map(str, each["after"])),
            ", ".join(map(str, each["above"])),
            each["stopped"],
            f"{each['epochs_saved']:.0%}",
            f"{each['best_quarter_stopped']} of {each['best_quarter']}",
            f"{each['front_stopped']} of {each['front']}",
            f"{each['lowest_error_stopped']:.2f}" if each["stopped"] else "-",
        ]
        for each in rows
    ]
    print(tabulate(cells, heads, disable_numparse=True, colalign=["right"] * len(heads)))
    if options.json:
        curves = {record["candidate"]: [epoch["val_rmse"] for epoch in record["history"]] for record in good}
        about = {
            "networks": len(good),
            "most_mmac": options.most_mmac,
            "epochs": options.epochs,
            "preset": options.preset,
            "space": space.name,
        }
        write_json(options.json, {**about, "clips": clips, "mean_rmse": of_mean, "rules": rows, "val_rmse": curves})


if __name__ == "__main__":
    main()
