"""Checking a run's configuration before any job starts: every problem at once, each in a line saying what to do."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from edgeloop.records import Genotype

CLIP_FRAMES = 16


class ConfigError(ValueError):
    """A configuration that cannot run. The message lists every problem."""


def complete(config: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Check `config` against its schema, fill in the defaults and order its keys, in place. Raises ConfigError."""
    _convert(config, schema, schema)
    problems = [_explain(error) for error in _validator(schema).iter_errors(config)]
    if problems:
        raise ConfigError(_listed(problems))


def _convert(instance: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """`instance` with numbers for texts where numbers are due: Snakemake reads all that --config holds as text."""
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(instance, dict):
        others = schema.get("additionalProperties") or {}
        for key in instance:
            instance[key] = _convert(instance[key], schema.get("properties", {}).get(key, others), root)
    kinds = {kind for part in (schema, *schema.get("oneOf", [])) for kind in _kinds(part)}
    if isinstance(instance, str) and "string" not in kinds and kinds & {"integer", "number", "boolean"}:
        try:
            return yaml.safe_load(instance)
        except yaml.YAMLError:
            return instance  # the check says what is wrong with it
    return instance


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def check(
    config: Mapping[str, Any],
    folders: Sequence[Path],
    check_device: Callable[[str, Mapping[str, Any]], Any],
) -> None:
    """Check what concerns several keys, or the world outside the file, of a completed `config`.

    Paths in the config are seen from the first of `folders` from which they lead to something; `check_device` raises
    ValueError for a device entry that cannot be used. Raises ConfigError. Imports PyTorch.
    """

    def locate(path: str) -> Path | None:
        return find(path, *folders)

    problems = [
        *_dataset(config["dataset"], locate),
        *_search(config),
        *_early_stopping(config["training"]["early_stopping"]),
        *_warm_start(config["search"], locate),
        *_measurement(config["measurement"]),
        *_devices(config["devices"], check_device),
        *_space(config["space"], locate),
        *_baselines(config["baselines"]),
    ]
    if problems:
        raise ConfigError(_listed(problems))


def find(path: str, *folders: Path) -> Path | None:
    """The first of `folders` from which `path` leads to something that exists; None where it leads nowhere."""
    found = (folder / Path(path).expanduser() for folder in folders)
    return next((file for file in found if file.exists()), None)


def load_space(path: Path):
    """The search space in `path`, checked against the families and the training genes that there are."""
    from edgeloop import space_file, training
    from edgeloop.models import registry

    return space_file.load(path, registry.check, registry.genes, registry.declared(training.Recipe))


def baseline_genotype(baseline: Mapping[str, Any]) -> Genotype:
    """The genotype of an entry of `baselines`: a baseline is a candidate like any other."""
    return {
        "architecture": dict(baseline["architecture"]),
        "precision": baseline["precision"],
        "training": dict(baseline["training"]),
    }


def object_names(simulate: Mapping[str, Any]) -> list[str]:
    """The names of the printed objects that are simulated."""
    return [f"S{number:03d}" for number in range(1, simulate["objects"] + 1)]


def _listed(problems: list[str]) -> str:
    return "the configuration cannot run:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _validator(schema: Mapping[str, Any]) -> jsonschema.Draft202012Validator:
    """A validator that fills in defaults before it looks inside (the recipe of jsonschema's FAQ)."""
    plain = jsonschema.Draft202012Validator

    def properties(validator, declared, instance, parent):
        if isinstance(instance, dict):
            for key, part in declared.items():
                if "default" in part:
                    default = part["default"]
                    instance.setdefault(key, dict(default) if isinstance(default, dict) else default)
            # Snakemake compares params as they are printed: another order of the same keys would run everything again.
            ordered = {key: instance.pop(key) for key in declared if key in instance}
            instance.update(ordered)
        yield from plain.VALIDATORS["properties"](validator, declared, instance, parent)

    return jsonschema.validators.extend(plain, {"properties": properties})(schema)


def _explain(error: jsonschema.ValidationError) -> str:
    key = ".".join(map(str, error.absolute_path))
    at = f"'{key}'" if key else "the configuration"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in known]
        return "; ".join(f"unknown key '{name}' in {at}{_suggestion(name, known)}" for name in unknown)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{at} lacks the key{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    if error.validator == "oneOf":
        closest = jsonschema.exceptions.best_match(error.context)
        if closest is not None and closest.validator in ("additionalProperties", "required"):
            kinds = " or ".join(
                "{" + ", ".join(part["required"]) + "}" for part in error.validator_value if "required" in part
            )
            return f"{at} is {error.instance!r}: expected {kinds}"
        return f"{at} is {error.instance!r}: {_message(closest or error)}"
    return f"{at} is {error.instance!r}: {_message(error)}"


EXPECTED = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minProperties": "at least one entry",
    "minItems": "at least one entry",
    "minLength": "some text",
    "pattern": "a name of letters, digits, '-' and '_'",
}


def _message(error: jsonschema.ValidationError) -> str:
    limit = error.validator_value
    if error.validator == "enum":
        return f"expected one of {', '.join(map(str, limit))}"
    if error.validator == "type":
        return f"expected {limit if isinstance(limit, str) else ' or '.join(limit)}"
    if error.validator in EXPECTED:
        return f"expected {EXPECTED[error.validator].format(limit)}"
    return error.message


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; it has {', '.join(known)}"


def _dataset(dataset: Mapping[str, Any], locate: Callable[[str], Path | None]) -> Iterator[str]:
    if dataset["source"] == "raise-lpbf":
        paths = dataset["path"] if isinstance(dataset["path"], list) else [dataset["path"]]
        if paths == [None]:
            yield "'dataset.path' is missing: source raise-lpbf needs an HDF5 file, a folder of them, or a list"
        for path in paths:
            if path is not None and locate(path) is None:
                yield f"'dataset.path': there is no {path}"
    else:
        yield from _simulate(dataset)
    parts = dataset["split"]
    named = {part: set(parts[part].get("objects", ())) for part in ("validation", "test")}
    if both := named["validation"] & named["test"]:
        yield f"'dataset.split': {', '.join(sorted(both))} cannot be for validation and for the test at once"


def _simulate(dataset: Mapping[str, Any]) -> Iterator[str]:
    from edgeloop.data.simulate import PRESETS

    simulate = dataset["simulate"]
    if dataset["path"] is not None:
        yield "'dataset.path' is for source raise-lpbf only; set the source, or remove the path"
    if simulate["min_frames"] > simulate["max_frames"]:
        yield (
            f"'dataset.simulate.min_frames' is {simulate['min_frames']}, above max_frames, "
            f"{simulate['max_frames']}: no line can be that long"
        )
    if simulate["max_frames"] < CLIP_FRAMES:
        yield f"'dataset.simulate.max_frames' is {simulate['max_frames']}: a clip needs {CLIP_FRAMES} lit frames"
    parameters = [field.name for field in fields(PRESETS[simulate["preset"]])]
    for name in simulate["parameters"]:
        if name not in parameters:
            yield f"unknown key '{name}' in 'dataset.simulate.parameters'{_suggestion(name, parameters)}"
    objects = object_names(simulate)
    for part in ("validation", "test"):
        for name in dataset["split"][part].get("objects", ()):
            if name not in objects:
                yield f"'dataset.split.{part}.objects' names {name}; the simulated objects are {', '.join(objects)}"


def _search(config: Mapping[str, Any]) -> Iterator[str]:
    from edgeloop.search.registry import strategy

    search, pool = config["search"], config["screening"]["pool"]
    try:
        module = strategy(search["strategy"])
    except ValueError as error:
        yield f"'search.strategy': {error}"
    else:
        known = list(getattr(module, "DEFAULTS", {}))
        for name in search["options"]:
            if name not in known:
                yield f"unknown key '{name}' in 'search.options' of {search['strategy']}{_suggestion(name, known)}"
    yield from _devices_of_search(config)
    if pool and pool < search["generation_size"]:
        yield (
            f"'search.generation_size' is {search['generation_size']}, more than 'screening.pool', {pool}: "
            "raise the pool, lower the size, or set the pool to 0 to train without screening"
        )
    rungs, epochs = search["halving"]["epochs"], config["training"]["epochs"]
    if any(low >= high for low, high in pairwise([*rungs, epochs])):
        yield (
            f"'search.halving.epochs' is {rungs}, with 'training.epochs' at {epochs}: expected ascending numbers of "
            "epochs below that; [] trains all in full"
        )


def _early_stopping(setting: Mapping[str, Any]) -> Iterator[str]:
    from edgeloop.early_stopping import EarlyStopping

    try:
        EarlyStopping(**setting)
    except ValueError as error:
        yield f"'training.early_stopping': {error}"


def _devices_of_search(config: Mapping[str, Any]) -> Iterator[str]:
    """`feasible_on`, `objective_device` and the budgets that the objectives need."""
    from edgeloop.search import costs

    search, devices = config["search"], list(config["devices"])
    if unknown := [name for name in search["feasible_on"] or () if name not in devices]:
        yield f"'search.feasible_on' names {unknown[0]}; the devices are {', '.join(devices)}"
        return
    budgets, device = costs.budgets(config), costs.objective_device(config)
    if costs.WORST in devices:
        yield f"'devices.{costs.WORST}': the name stands for all devices in 'search.objective_device', choose another"
    if device != costs.WORST and device not in budgets:
        known = ", ".join([*budgets, costs.WORST])
        yield f"'search.objective_device' is {device!r}: expected one of {known} (devices whose budgets count)"
        return
    for figure in search["objectives"][1:]:
        key = next(key for key, limited in costs.BUDGET_KEYS.items() if limited == figure)
        # WORST: at least one device has to limit it, and counts.
        having = [name for name, limits in budgets.items() if figure in limits]
        needed = next(iter(budgets)) if device == costs.WORST else device
        if needed not in having and not (device == costs.WORST and having):
            yield (
                f"'search.objectives' has {figure}, but 'devices.{needed}' has no {key}: give it one, from which on a "
                "network is of no use"
            )


def _warm_start(search: Mapping[str, Any], locate: Callable[[str], Path | None]) -> Iterator[str]:
    from edgeloop.search import warm_start

    if Path("results/warm_start.json").exists():
        return  # the run has its own copy, whatever has become of the others
    for path in search["warm_start"]:
        try:
            warm_start.read(locate(path) or Path(path))
        except warm_start.WarmStartError as error:
            yield str(error)


def _measurement(measurement: Mapping[str, Any]) -> Iterator[str]:
    if measurement["min_s"] > measurement["max_s"]:
        yield f"'measurement.min_s' is {measurement['min_s']}, above max_s, {measurement['max_s']}"


def _devices(devices: Mapping[str, Any], check_device: Callable[[str, Mapping[str, Any]], Any]) -> Iterator[str]:
    for name, entry in devices.items():
        try:
            check_device(name, entry)
        except ValueError as error:
            yield str(error)


def _space(path: str, locate: Callable[[str], Path | None]) -> Iterator[str]:
    found = locate(path)
    if found is None:
        yield f"'space': there is no file {path}"
        return
    try:
        load_space(found)
    except ValueError as error:
        yield str(error)


def _baselines(baselines: Mapping[str, Any]) -> Iterator[str]:
    from edgeloop import training
    from edgeloop.models import registry

    for name, baseline in baselines.items():
        try:
            registry.check(baseline["architecture"])
            if baseline["train"]:
                training.Recipe.from_genes(baseline["training"])
        except ValueError as error:
            yield f"'baselines.{name}': {error}"
