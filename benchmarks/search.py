"""How much a search strategy finds with how few trainings, on a table of networks that others have trained and timed.

The table has a column for each gene, `op*` (categorical), `val_error_percent`, and a latency `DEVICE_ms` that is blank
where it was never measured: such a network cannot be drawn. The budget is a quantile of the device's latencies. Every
generation is decided by the functions that the workflow calls; the table answers in place of training and device.

Score: the hypervolume of the feasible trained networks as a share of that of all feasible networks in the table, up to
(the 0.3 quantile of the feasible networks' errors, the budget); and how much worse than the best feasible error the
best one found is, in percent points (regret). The strategy knows the budget, not the reference error.

    python benchmarks/search.py --table nas201_cifar10.csv --device pixel3,edgetpu,fpga --strategy gp-ehvi,evolution
    python benchmarks/search.py --table nas201_cifar10.csv --device fpga --strategy nevergrad --pool 0   # the paper's

Mean and standard error over the seeds. Several devices or strategies are separated by commas.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

# Before numpy: seeds run side by side.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from tabulate import tabulate

from edgeloop.records import Genotype, architecture_id, candidate_id, ok
from edgeloop.search import decide, pareto, state
from edgeloop.search.costs import Budgets
from edgeloop.search.results import knowledge
from edgeloop.space import Gene, Space

REFERENCE_QUANTILE = 0.3
LOSS, FAMILY = "val_error_percent", "table"


class TableSpace(Space):
    """The genes of a table; what is not in it is forbidden."""

    def is_allowed(self, flat):
        return tuple(value for name, value in flat.items() if name not in ("family", "precision")) in self.rows

    @classmethod
    def of(cls, genes: pd.DataFrame, rows: dict[tuple, int]) -> "TableSpace":
        fixed = {"family": (FAMILY,), "precision": ("fp32",)}
        choices = fixed | {f"{FAMILY}:{name}": tuple(sorted(genes[name].unique())) for name in genes}
        space = cls(
            "table", {name: Gene(name, values, None, False, False, {}, ()) for name, values in choices.items()}, ()
        )
        object.__setattr__(space, "rows", rows)
        return space


class Problem(Protocol):
    """What can be searched without the workflow."""

    space: Space
    budget: float

    @property
    def worst_loss(self) -> float:
        """What the loss of a network that is of no use may be."""

    def trained(self, genotype: Genotype) -> dict[str, Any]:
        """The record of its training."""

    def latencies_ms(self, genotypes: Sequence[Genotype]) -> list[float]:
        """What the device would tell of each."""


@dataclass(frozen=True)
class Table:
    """One device of a table."""

    space: TableSpace
    rows: dict[tuple, int]
    loss: np.ndarray
    costs: np.ndarray
    budget: float

    def row(self, genotype: Genotype) -> int:
        flat = self.space.flatten(genotype)
        return self.rows[tuple(value for name, value in flat.items() if name not in ("family", "precision"))]

    @property
    def worst_loss(self) -> float:
        return float(self.loss.max())

    def trained(self, genotype: Genotype) -> dict[str, Any]:
        return ok(val_rmse=float(self.loss[self.row(genotype)]))

    def latencies_ms(self, genotypes: Sequence[Genotype]) -> list[float]:
        return [float(self.costs[self.row(genotype)]) for genotype in genotypes]

    @property
    def feasible(self) -> np.ndarray:
        return self.costs <= self.budget

    def reference(self) -> tuple[float, float]:
        return float(np.quantile(self.loss[self.feasible], REFERENCE_QUANTILE)), self.budget

    def hypervolume(self, rows: np.ndarray) -> float:
        rows = rows[self.feasible[rows]]
        return pareto.hypervolume(np.column_stack([self.loss[rows], self.costs[rows]]), self.reference())


@cache
def problem(table: str, device: str, quantile: float) -> Table:
    frame = pd.read_csv(table, keep_default_na=False, na_values=[""])
    if f"{device}_ms" not in frame:
        known = ", ".join(name.removesuffix("_ms") for name in frame if name.endswith("_ms"))
        raise SystemExit(f"{table} has no column {device}_ms; its devices are {known}")
    frame = frame[frame[f"{device}_ms"].notna()].reset_index(drop=True)
    genes = frame[[name for name in frame if name.startswith("op")]].astype(str)
    rows = {values: row for row, values in enumerate(genes.itertuples(index=False, name=None))}
    costs = frame[f"{device}_ms"].to_numpy(float)
    budget = float(np.quantile(costs, quantile))
    return Table(TableSpace.of(genes, rows), rows, frame[LOSS].to_numpy(float), costs, budget)


def search(
    asked: Problem, name: str, seed: int, *, most: int, size: int, pool: int, options: dict[str, Any]
) -> tuple[list[Genotype], list[float]]:
    """The networks trained, in their order, and the seconds of each generation's decision."""
    budgets: Budgets = {"device": {"latency_ms": asked.budget}}
    current, trained, seconds = state.empty(), [], []
    while len(trained) < most:
        generation = current["generation"] + 1
        begin = time.perf_counter()
        known = knowledge(asked.space, current, budgets=budgets, objectives=["latency_ms"])
        proposals = decide.propose(
            known, name=name, options=options, seed=seed, generation=generation, count=pool or size
        )
        seconds.append(time.perf_counter() - begin)
        genes = {
            architecture_id(g): {"architecture": g["architecture"], "precision": g["precision"]} for g in proposals
        }
        latencies = asked.latencies_ms(proposals)
        figures = {architecture_id(g): ok(latency_ms=ms) for g, ms in zip(proposals, latencies, strict=True)}
        new = {name: figure for name, figure in figures.items() if name not in current["screened"]}
        screening = [ok(device="device", architectures=new)] if pool else []
        begin = time.perf_counter()
        known = knowledge(
            asked.space, state.with_screening(current, screening, genes), budgets=budgets, objectives=["latency_ms"]
        )
        chosen = decide.choose(
            known,
            proposals,
            name=name,
            options=options,
            seed=seed,
            generation=generation,
            count=size,
            screening=pool > 0,
        )
        seconds[-1] += time.perf_counter() - begin
        if not chosen:
            break
        trained += chosen
        names = [candidate_id(g) for g in chosen]
        current = state.advance(
            current,
            population={
                "generation": generation,
                "parent": current["lineage"],
                "candidates": names,
                "genotypes": chosen,
            },
            screening=screening,
            genes=genes,
            train={name: asked.trained(genotype) for name, genotype in zip(names, chosen, strict=True)},
            export={name: ok() for name in names},
            measured={
                "device": {name: ok(latency_ms=ms) for name, ms in zip(names, asked.latencies_ms(chosen), strict=True)}
            },
            budgets=budgets,
            objectives=["latency_ms"],
            reference_rmse=asked.worst_loss,
            patience=most,
        )
    return trained, seconds


def score(asked: Table, trained: list[int], counts: list[int]) -> list[tuple[float, float]]:
    """Hypervolume in percent and regret after each count of trained networks."""
    achievable, best = asked.hypervolume(np.arange(len(asked.loss))), asked.loss[asked.feasible].min()
    scores = []
    for count in counts:
        rows = np.array(trained[:count])
        feasible = rows[asked.feasible[rows]]
        regret = asked.loss[feasible].min() - best if len(feasible) else np.inf
        scores.append((100 * asked.hypervolume(rows) / achievable, float(regret)))
    return scores


def one(
    seed: int,
    *,
    table: str,
    device: str,
    quantile: float,
    name: str,
    counts: list[int],
    options: dict[str, Any],
    **sizes: int,
):
    asked = problem(table, device, quantile)
    trained, seconds = search(asked, name, seed, most=max(counts), options=options, **sizes)
    return score(asked, [asked.row(genotype) for genotype in trained], counts), max(seconds)


def of_strategy(given: Sequence[str]) -> dict[str, Any]:
    """The strategy's options, from KEY=VALUE each."""
    return {key: yaml.safe_load(value) for key, value in (each.split("=", 1) for each in given)}


def mean_and_error(figures: npt.ArrayLike, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the seeds, which lie along `axis`; with a single one the error is given as 0."""
    figures = np.asarray(figures)
    seeds = figures.shape[axis]
    return figures.mean(axis), figures.std(axis, ddof=1 if seeds > 1 else 0) / np.sqrt(seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True)
    parser.add_argument("--device", required=True, help="columns DEVICE_ms of the table")
    parser.add_argument("--budget-quantile", type=float, default=0.4, metavar="Q")
    parser.add_argument("--strategy", default="gp-ehvi")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--trained", default="32,64,128")
    parser.add_argument("--generation-size", type=int, default=8)
    parser.add_argument("--pool", type=int, default=64, help="screened in each generation; 0 for no screening")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the strategy")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", metavar="OUT")
    asked = parser.parse_args()
    options = of_strategy(asked.option)
    counts = [int(count) for count in asked.trained.split(",")]
    results, rows = [], []
    with ProcessPoolExecutor(asked.processes) as workers:
        for name in asked.strategy.split(","):
            means = []
            for device in asked.device.split(","):
                job = partial(
                    one, table=asked.table, device=device, quantile=asked.budget_quantile, name=name, counts=counts,
                    options=options, size=asked.generation_size, pool=asked.pool,
                )  # fmt: skip
                done = list(workers.map(job, range(1, asked.seeds + 1)))
                figures = np.array([scores for scores, _ in done])  # [seeds, counts, (hypervolume, regret)]
                mean, error = mean_and_error(figures, axis=0)
                results.append(
                    {
                        "strategy": name,
                        "device": device,
                        "seeds": asked.seeds,
                        "pool": asked.pool,
                        "options": options,
                        "trained": {
                            str(count): {
                                "hypervolume_percent": mean[k, 0],
                                "standard_error": error[k, 0],
                                "regret": mean[k, 1],
                                "regret_standard_error": error[k, 1],
                            }
                            for k, count in enumerate(counts)
                        },
                        "slowest_decision_s": max(second for _, second in done),
                    }
                )
                means.append((mean, error))
                rows.append([name, device, *_cells(mean, error), f"{results[-1]['slowest_decision_s']:.1f}"])
                print(*rows[-1], flush=True)
            if len(means) > 1:
                mean = np.mean([each for each, _ in means], axis=0)
                error = np.sqrt(np.sum([each**2 for _, each in means], axis=0)) / len(means)
                rows.append([name, "mean", *_cells(mean, error), ""])
    heads = ["strategy", "device", *(f"after {count}, %" for count in counts), *(f"regret {count}" for count in counts)]
    screened = (
        f"{asked.pool} screened and {asked.generation_size} trained"
        if asked.pool
        else (f"{asked.generation_size} trained, none screened")
    )
    print(f"\nHypervolume and regret, {asked.seeds} seeds, {screened} in each generation")
    print(tabulate(rows, [*heads, "slowest decision, s"], disable_numparse=True))
    if asked.json:
        Path(asked.json).write_text(json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")


def _cells(mean: np.ndarray, error: np.ndarray) -> list[str]:
    """Hypervolumes, then regrets, [counts, 2] each."""
    return [f"{m:.1f} ± {e:.1f}" for m, e in zip(mean[:, 0], error[:, 0], strict=True)] + [
        f"{m:.2f} ± {e:.2f}" for m, e in zip(mean[:, 1], error[:, 1], strict=True)
    ]


if __name__ == "__main__":
    main()
