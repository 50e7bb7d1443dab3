"""What searches of few trainings find in the space of a run, by strategy: many seeds, each training a real one.

The workflow would take ten minutes for each search, most of them for the device. Here networks are trained in this
process, on the run's clips, and each only once (--folder keeps what was trained); what they cost is predicted from what
the run's device has told of others, by a forest of trees for each family. How far that is from the device is printed
first, by cross-validation. It is good enough to tell strategies apart, and for nothing else.

A row: the lowest validation RMSE within the budget, by seed; their median, mean and standard error; the hypervolume of
what was trained, in units of 0.001 ms, up to the budget and the RMSE that --reference names.

    python benchmarks/few_trainings.py --run FOLDER [--costs FOLDER ...] [--strategy gp-ehvi,evolution,random]
        [--seeds 16] [--first-seed 1] [--trained 16] [--generation-size 4] [--pool 128] [--option KEY=VALUE ...]
        [--folder DIR]

`gp-ehvi` begins with evolution's networks; in searches as short as this, let it begin with one generation of them
(--option start=4).

--run: a finished run whose clips, space, budget and settings of training are taken (that of `headline.py --folder`, for
example); --costs: further runs in that space on the same device.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

# Before numpy and torch: seeds run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import yaml
from search import mean_and_error, of_strategy, search
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict
from tabulate import tabulate

from edgeloop import config as configuration
from edgeloop import training, yamlfile
from edgeloop.data.cache import open_split
from edgeloop.records import Genotype, candidate_id, digest, failed, ok, read_json, write_json
from edgeloop.search import pareto
from edgeloop.space import Space

ROOT = Path(__file__).parents[1]
TREES, FOLDS = 300, 10
WORST_LOSS = 0.577  # of a network that always says the mean of targets between -1 and 1


def configured(file: Path) -> dict[str, Any]:
    """What a run with this configuration goes by, defaults included."""
    config = yaml.safe_load(file.read_text())
    configuration.complete(config, yamlfile.load(ROOT / "workflow/schemas/config.schema.yaml").value)
    return config


class Costs:
    """The latencies of a space's networks on a device, predicted from those of some."""

    def __init__(self, space: Space, known: Sequence[tuple[Genotype, float]]) -> None:
        self._space = space
        families = defaultdict(list)
        for genes, latency in known:
            families[genes["architecture"]["family"]].append((self._figures(genes), np.log(latency)))
        self._names = {name: sorted({key for row, _ in rows for key in row}) for name, rows in families.items()}
        self._forests, self.errors = {}, {}
        for name, rows in families.items():
            x, y = self._columns(name, [row for row, _ in rows]), np.array([logarithm for _, logarithm in rows])
            forest = ExtraTreesRegressor(TREES, random_state=0)
            self.errors[name] = np.abs(cross_val_predict(forest, x, y, cv=FOLDS) - y)
            self._forests[name] = forest.fit(x, y)

    def predict(self, genotypes: Sequence[Genotype]) -> list[float]:
        """In ms."""
        families, found = defaultdict(list), np.empty(len(genotypes))
        for position, genotype in enumerate(genotypes):
            families[genotype["architecture"]["family"]].append(position)
        if unknown := set(families) - set(self._forests):
            raise SystemExit(f"no network of {', '.join(sorted(unknown))} was measured: name further runs with --costs")
        for name, positions in families.items():
            rows = [self._figures(genotypes[position]) for position in positions]
            found[positions] = np.exp(self._forests[name].predict(self._columns(name, rows)))
        return found.tolist()

    def _columns(self, family: str, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        return np.array([[row.get(key, 0.0) for key in self._names[family]] for row in rows])

    def _figures(self, genotype: Genotype) -> dict[str, float]:
        """Genes as numbers: lists by their length, sum and ends, words by whether they are said."""
        found: dict[str, float] = {}
        for name, value in self._space.flatten({**genotype, "training": {}}, training=False).items():
            if isinstance(value, list | tuple):
                ends = {"first": value[0], "last": value[-1]} if value else {}
                for key, figure in {"length": len(value), "sum": sum(value), **ends}.items():
                    found[f"{name} {key}"] = float(figure)
            elif isinstance(value, str):
                found[f"{name} {value}"] = 1.0
            else:
                found[name] = float(value)
                if name.endswith(":pixels"):
                    found[f"{name} squared"] = float(value) ** 2
        return found


class Run:
    """What a finished run has, as a problem for `search.search`."""

    def __init__(self, run: Path, config: dict[str, Any], further: Sequence[Path], folder: Path) -> None:
        self.space = configuration.load_space(configuration.find(config["space"], Path.cwd(), ROOT))
        (self._device, device), *_ = config["devices"].items()
        self.budget, self.worst_loss = float(device["budget_ms"]), WORST_LOSS
        names = {each.name for each in fields(training.Settings)}
        settings = {key: value for key, value in config["training"].items() if key in names}
        self._settings = training.Settings(**{**settings, "device": "cpu", "threads": 1})
        self._data = run / "results/data"
        # Runs with other clips, or other settings, have trainings of their own.
        self._folder = folder / digest([read_json(self._data / "cache.json"), asdict(self._settings)])
        self._folder.mkdir(parents=True, exist_ok=True)
        self.costs = Costs(self.space, [each for one in (run, *further) for each in self._measured(one)])

    def _measured(self, run: Path) -> list[tuple[Genotype, float]]:
        last = max((run / "results/generations").glob("*/state.json"))
        entries = read_json(last)["screened"].values()
        found = [(entry["genes"], (entry["costs"].get(self._device) or {}).get("latency_ms")) for entry in entries]
        return [(genes, latency) for genes, latency in found if latency is not None]

    def trained(self, genotype: Genotype) -> dict[str, Any]:
        """Trained in fp32, whatever its precision: what int8 makes of it is not what strategies differ by."""
        genotype = {**genotype, "precision": "fp32"}
        file = self._folder / f"{candidate_id(genotype)}.json"
        if not file.exists():
            splits = (open_split(self._data, split) for split in ("train", "validation"))
            record = training.train(genotype, *splits, self._settings)
            good = record["status"] == "ok"
            write_json(file, ok(val_rmse=record["val_rmse"]) if good else failed(record["reason"]))
        return read_json(file)

    def latencies_ms(self, genotypes: Sequence[Genotype]) -> list[float]:
        return self.costs.predict(genotypes)


def one(seed: int, *, asked: Run, name: str, **rest: Any) -> list[tuple[float, float]]:
    """(validation RMSE, latency in ms) of what a search has trained within the budget, in its order."""
    trained, _ = search(asked, name, seed, **rest)
    records = zip(map(asked.trained, trained), asked.latencies_ms(trained), strict=True)
    good = [(record["val_rmse"], latency) for record, latency in records if record["status"] == "ok"]
    return [each for each in good if each[1] <= asked.budget]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument(
        "--config", type=Path, help="what the run was configured with; default: config.yaml in its folder"
    )
    parser.add_argument("--costs", type=Path, nargs="+", default=[])
    parser.add_argument("--strategy", default="gp-ehvi,evolution,random")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=1, help="what was tuned with some seeds is judged by others")
    parser.add_argument("--trained", type=int, default=16)
    parser.add_argument("--generation-size", type=int, default=4)
    parser.add_argument("--pool", type=int, default=128)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the strategy")
    parser.add_argument("--reference", type=float, default=0.3, metavar="RMSE")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    strategy = of_strategy(options.option)
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = options.folder or Path(temporary), options.config or options.run / "config.yaml"
        asked = Run(options.run, configured(config), options.costs, folder)
        print("Latencies are predicted, not measured; by how much a prediction is wrong in the median:")
        print(", ".join(f"{name} {np.median(each):.0%}" for name, each in sorted(asked.costs.errors.items())), "\n")
        rows, results = [], []
        with ProcessPoolExecutor(options.processes) as workers:
            for name in options.strategy.split(","):
                job = partial(
                    one,
                    asked=asked,
                    name=name,
                    most=options.trained,
                    size=options.generation_size,
                    pool=options.pool,
                    options=strategy if name == "gp-ehvi" else {},
                )
                found = list(workers.map(job, range(options.first_seed, options.first_seed + options.seeds)))
                best = [min((loss for loss, _ in each), default=WORST_LOSS) for each in found]
                volumes = [1000 * pareto.hypervolume(each, (options.reference, asked.budget)) for each in found]
                mean, error = mean_and_error([best, volumes], axis=1)
                seeds = " ".join(f"{each:.3f}" for each in best)
                cells = [f"{np.median(best):.4f}", *(f"{m:.4f} ± {e:.4f}" for m, e in zip(mean, error, strict=True))]
                rows.append([name, seeds, *cells])
                results.append({"strategy": name, "val_rmse": best, "hypervolume": volumes})
                print(name, seeds, flush=True)
    print(
        f"\nThe lowest validation RMSE within {asked.budget:g} ms after {options.trained} trainings, "
        f"{options.generation_size} in each generation, {options.pool} screened\n"
    )
    print(tabulate([[name, *cells] for name, _, *cells in rows], ["strategy", "median", "mean", "hypervolume"]))
    if options.json:
        write_json(options.json, {"trained": options.trained, "options": strategy, "strategies": results})


if __name__ == "__main__":
    main()
