"""An archived search decided anew: the same records must lead to the same candidates and the same front."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop import config as configuration
from edgeloop.archive import SPACE
from edgeloop.populations import FULL, stages
from edgeloop.records import candidate_id, read_json
from edgeloop.search import decide, halving, state
from edgeloop.search.costs import BUDGET_KEYS, budgets, objective_device
from edgeloop.space import Space

State = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What deciding a generation anew has come to; `same` is None where it could not be done."""

    generation: int
    same: bool | None
    said: str


def replay(run: Path, config: Mapping[str, Any]) -> Iterator[Verdict]:
    """Decide each generation of the run in the unpacked folder `run` anew, from the records before it.

    A decision is taken with the settings of its day, which it holds. It cannot be taken anew where a record that it
    rests on has been measured or trained again since.
    """
    history = History(run, config, configuration.load_space(run / SPACE))
    for number in range(len(history.folders)):
        for verdict in (history.decision(number), history.outcome(number)):
            if verdict is not None:
                yield verdict


class History:
    """The records of a search, by generation."""

    def __init__(self, run: Path, config: Mapping[str, Any], space: Space) -> None:
        self.run, self.config, self.space = run, config, space
        self.folders = sorted(file.parent for file in (run / "results/generations").glob("*/population.json"))
        self.earlier = read_json(run / "results/warm_start.json")
        self.reference_rmse = read_json(run / "results/predictors.json")["predictors"]["mean"]["val_rmse"]
        self._states: dict[str, list[State]] = {}

    def decision(self, number: int) -> Verdict:
        """Whether generation `number` is proposed and chosen the same."""
        folder = self.folders[number]
        proposals, population = read_json(folder / "proposals.json"), read_json(folder / "population.json")
        if newer := self._newer(number, proposals, population):
            return Verdict(number, None, f"not decided anew: {newer} has been made again since")
        settings = proposals["settings"]
        previous = self._before(number, settings)
        if proposals["stop"]:
            return Verdict(number, previous["stop"], f"the search ends, as it did: {proposals['reason']}")
        proposed = decide.propose(
            self._known(previous, settings), count=settings["pool"] or settings["generation_size"], generation=number,
            **self._strategy(settings),
        )  # fmt: skip
        if proposed != proposals["proposals"]:
            return Verdict(number, False, f"other proposals: {_first_difference(proposed, proposals['proposals'])}")
        settings = population["settings"]
        previous = self._before(number, settings)
        screened = state.with_screening(previous, self._screening(number, settings), proposals["to_screen"])
        chosen = decide.choose(
            self._known(screened, settings), proposed, count=settings["generation_size"], generation=number,
            screening=settings["pool"] > 0, **self._strategy(settings),
        )  # fmt: skip
        if [candidate_id(genotype) for genotype in chosen] != population["candidates"]:
            return Verdict(number, False, f"other candidates: {_first_difference(chosen, population['genotypes'])}")
        for rung, promoted in self._promoted(number, population):
            if promoted != read_json(folder / f"promoted.{rung}.json")["candidates"]:
                return Verdict(number, False, f"others go on after {rung} epochs: {', '.join(promoted)}")
        return Verdict(number, True, f"the same {len(proposed)} proposals, the same {len(chosen)} candidates")

    def outcome(self, number: int) -> Verdict | None:
        """Whether the state after generation `number` is the same; None where the search ended before."""
        file = self.folders[number] / "state.json"
        if not file.exists():
            return None
        archived, now = read_json(file), self._before(number + 1, self._current())
        other = [key for key in archived if archived[key] != now.get(key)]
        if other:
            return Verdict(number, False, f"another state: {', '.join(other)}")
        return Verdict(number, True, f"the same front of {len(now['front'])}, hypervolume {now['hypervolume'][-1]:.4f}")

    def _current(self) -> dict[str, Any]:
        """The settings that the states are of: they are drawn up anew when the budget changes."""
        return {
            "budgets": budgets(self.config),
            "device": objective_device(self.config),
            "objectives": self.config["search"]["objectives"][1:],
            "patience": self.config["search"]["patience"],
        }

    def _before(self, number: int, settings: Mapping[str, Any]) -> State:
        """The state before generation `number`, under `settings`."""
        key = repr([settings[name] for name in ("budgets", "objectives", "device", "patience")])
        states = self._states.setdefault(key, [state.empty()])
        while len(states) <= number:
            states.append(self._advance(states[-1], len(states) - 1, settings))
        return states[number]

    def _advance(self, previous: State, number: int, settings: Mapping[str, Any]) -> State:
        population = read_json(self.folders[number] / "population.json")
        short = stages(self.folders[number], population)
        in_full = short.pop(FULL, [])

        def records(name: str) -> dict[str, Any]:
            return self._records(in_full, name)

        return state.advance(
            previous,
            population=population,
            screening=self._screening(number, settings),
            genes=read_json(self.folders[number] / "proposals.json")["to_screen"],
            short={rung: self._records(names, f"rung.{rung}.json") for rung, names in short.items()},
            train=records("train.json"),
            export=records("export.json"),
            measured={device: records(f"measure.{device}.json") for device in settings["budgets"]},
            budgets=settings["budgets"],
            objectives=settings["objectives"],
            reference_rmse=self.reference_rmse,
            patience=settings["patience"],
            device=settings["device"],
        )

    def _promoted(self, number: int, population: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
        """For each rung, who goes on by the records of all that came so far."""
        for rung, names in stages(self.folders[number], population).items():
            if rung is not FULL:
                yield rung, halving.decide(population, self._records(names, f"rung.{rung}.json"))

    def _records(self, candidates: Sequence[str], name: str) -> dict[str, Any]:
        folder = self.run / "results/candidates"
        return {candidate: read_json(folder / candidate / name) for candidate in candidates}

    def _screening(self, number: int, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [read_json(self.folders[number] / f"screening.{device}.json") for device in settings["budgets"]]

    def _known(self, current: State, settings: Mapping[str, Any]) -> Any:
        limits = {figure: key for key, figure in BUDGET_KEYS.items()}
        config = {
            "devices": {
                device: {limits[figure]: limit for figure, limit in entry.items()}
                for device, entry in settings["budgets"].items()
            },
            "search": {
                "objectives": ["val_rmse", *settings["objectives"]],
                "feasible_on": None,
                "objective_device": settings["device"],
            },
        }
        runs = [run for run in self.earlier["runs"] if run["lineage"] in settings["earlier"]]
        return decide.known(config, self.space, current, {**self.earlier, "runs": runs})

    def _strategy(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        search = self.config["search"]
        return {"name": search["strategy"], "seed": search["seed"], "options": settings["options"]}

    def _newer(self, number: int, proposals: Mapping[str, Any], population: Mapping[str, Any]) -> str | None:
        """A file that the decision on generation `number` rests on, and that is younger than it."""
        devices = population["settings"]["budgets"]
        screening = [folder / f"screening.{device}.json" for folder in self.folders[: number + 1] for device in devices]
        ages = dict.fromkeys(screening, population["decided_at"])
        for folder in self.folders[:number]:
            measured = [f"measure.{device}.json" for device in devices]
            for rung, candidates in stages(folder, read_json(folder / "population.json")).items():
                names = ["train.json", "export.json", *measured] if rung is FULL else [f"rung.{rung}.json"]
                files = [
                    self.run / "results/candidates" / candidate / name for candidate in candidates for name in names
                ]
                ages |= dict.fromkeys(files, proposals["decided_at"])
        younger = (file for file, decided_at in sorted(ages.items()) if read_json(file)["work"][1] > decided_at)
        return next((str(file.relative_to(self.run / "results")) for file in younger), None)


def _first_difference(now: Sequence[Any], then: Sequence[Any]) -> str:
    for position, (new, old) in enumerate(zip(now, then, strict=False)):
        if new != old:
            return f"number {position + 1} is {candidate_id(new)}, was {candidate_id(old)}"
    return f"{len(now)} instead of {len(then)}"
