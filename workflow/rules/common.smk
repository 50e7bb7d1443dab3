"""Configuration and every input function."""

import json
import math
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError

from edge import Device
from edgeloop import apart, summary, yamlfile
from edgeloop import config as configuration
from edgeloop.fingerprint import code
from edgeloop.packing import Packs
from edgeloop.records import candidate_id
from edgeloop.search import costs, identity

ROOT = Path(workflow.basedir)
FOLDERS = (Path.cwd(), ROOT)


def locate(path):
    """The file that a path in the config means: seen from the working directory, then from the repository."""
    return configuration.find(path, *FOLDERS)


try:
    configuration.complete(
        config, yamlfile.load(ROOT / "workflow/schemas/config.schema.yaml").value
    )
    # Jobs trust what the main process has checked. The check imports PyTorch, which takes more memory than the graph of a
    # thousand candidates: it has a process of its own.
    if workflow.is_main_process:
        apart.call(configuration.check, config, FOLDERS, Device.from_config)
        identity.check(Path("results/generations"), config, locate(config["space"]))
except ValueError as error:
    raise WorkflowError(str(error))


SPLITS = ("train", "validation", "test", "unlabelled")
DEVICES = list(config["devices"])
BASELINES = {
    candidate_id(configuration.baseline_genotype(baseline)): name
    for name, baseline in config["baselines"].items()
}


wildcard_constraints:
    candidate="[0-9a-f]{12}",
    device="|".join(DEVICES),
    gen=r"\d{3}",
    pack="[0-9a-f]{12}",
    seed="[1-9][0-9]*",
    object=r"[A-Za-z0-9_-]+",


# ---------------------------------------------------------------- data


def raw_files(wildcards):
    """The HDF5 files to prepare: simulated ones, or the user's."""
    dataset = config["dataset"]
    if dataset["source"] == "simulate":
        return expand(
            "results/raw/{object}.h5",
            object=configuration.object_names(dataset["simulate"]),
        )
    paths = dataset["path"] if isinstance(dataset["path"], list) else [dataset["path"]]
    found = [locate(path) for path in paths]
    return [
        file
        for path in found
        for file in (sorted(path.glob("*.h*5")) if path.is_dir() else [path])
    ]


def split_files(split):
    """The arrays of one split of the crop cache."""
    return [f"results/data/{split}.{part}" for part in ("clips.npy", "targets.npy")]


# ---------------------------------------------------------------- the loop


def population(gen):
    """The candidates of a generation; none once the search has stopped."""
    with checkpoints.sample.get(gen=gen).output.population.open() as file:
        return json.load(file)["candidates"]


def previous_state(wildcards):
    """The state that the generation before this one left; nothing before the first."""
    number = int(wildcards.gen)
    return f"results/generations/{number - 1:03d}/state.json" if number else []


def decision(gen):
    """The population of a generation that was decided; None when it was not, or when the search ended there: an end is
    looked at anew when the state has changed, because another `patience` or budget can revoke it.
    """
    file = Path(f"results/generations/{gen}/population.json")
    population = json.loads(file.read_text()) if file.exists() else {"candidates": []}
    return population if population["candidates"] else None


def state_to_decide_from(wildcards):
    """The previous state. What was decided stays decided (`ancient`), whatever is measured or trained again later."""
    state = previous_state(wildcards)
    return ancient(state) if state and decision(wildcards.gen) else state


def screening_to_decide_from(wildcards):
    """The screening on all devices, or on those that there were when the generation was decided."""
    decided = decision(wildcards.gen)
    devices = decided["devices"] if decided else DEVICES
    files = expand(
        "results/generations/{gen}/screening.{device}.json",
        gen=wildcards.gen,
        device=devices,
    )
    return ancient(files) if decided else files


# The end of the search carries in its name how long the search may be: Snakemake does not run a rule again because its
# checkpoint has yet to be made, but it does make a file that is missing.
HISTORY = f"results/history.{config['search']['max_generations']}.json"


RECORDS = {
    "train": ["train.json"],
    "export": ["export.json"],
    "models": ["model.onnx"],
    "measured": [f"measure.{device}.json" for device in DEVICES],
}


def records_of(candidates):
    """All that the search knows of `candidates`, by kind. Asked for again and again, of thousands: expand() is slower."""
    return {
        kind: [
            f"results/candidates/{candidate}/{file}"
            for candidate in candidates
            for file in files
        ]
        for kind, files in RECORDS.items()
    }


def generation_records(kind):
    """An input function: the records of one kind for every candidate of a generation."""
    return lambda wildcards: records_of(population(wildcards.gen))[kind]


def search_history(wildcards):
    """All states and all records up to the generation in which the search stopped: asks for one generation at a time.
    Input of the one rule that ends the search."""
    states, candidates = [], set()
    for number in range(config["search"]["max_generations"]):
        gen = f"{number:03d}"
        if not (found := population(gen)):
            break
        states.append(f"results/generations/{gen}/state.json")
        candidates.update(found)
    return {"states": states, **records_of(sorted(candidates - BASELINES.keys()))}


def is_trained(wildcards):
    """False for a baseline that is measured for latency only."""
    name = BASELINES.get(wildcards.candidate)
    return name is None or config["baselines"][name]["train"]


# ---------------------------------------------------------------- finalists

SEEDS = range(1, config["finalists"]["seeds"] + 1)
TRAINED_BASELINES = [
    candidate
    for candidate, name in BASELINES.items()
    if config["finalists"]["count"] and config["baselines"][name]["train"]
]
# What reads the list of finalists has it among its input files, too: only what depends on a checkpoint's output is looked at
# anew when the checkpoint has run, and a list of before may be all that there is as a run begins.
NOMINATED = ["results/finalists.json"] if config["finalists"]["count"] else []
OF_SEED = ["train.json", "export.json", "test.json", *RECORDS["measured"]]


def finalists():
    """Those of the front that are trained on the full budget; known once the search has ended."""
    if not config["finalists"]["count"]:
        return []
    with checkpoints.nominate.get().output[0].open() as file:
        return json.load(file)["candidates"]


def of_seeds(candidate, files):
    """These files of all trainings of a finalist."""
    return [
        f"results/finalists/{candidate}/{seed}/{file}"
        for seed in SEEDS
        for file in files
    ]


def final_records(wildcards):
    """All records of all finalists, and of the baselines beside them."""
    found = finalists()
    return [
        file
        for candidate in [*found, *TRAINED_BASELINES]
        for file in of_seeds(candidate, OF_SEED)
    ]


def final_predictions(wildcards):
    """What finalists predict for each of the test clips."""
    return [
        file
        for candidate in finalists()
        for file in of_seeds(candidate, ["predictions.csv"])
    ]


def baselines_records(wildcards):
    """What of the baselines' records need not wait until the search has ended: all but the test."""
    return [
        file
        for candidate in TRAINED_BASELINES
        for file in of_seeds(candidate, OF_SEED)
        if Path(file).name != "test.json"
    ]


def bundles(wildcards):
    """What there is to deploy: a bundle of each finalist."""
    return [f"results/finalists/{candidate}/bundle.zip" for candidate in finalists()]


# ---------------------------------------------------------------- packs

PACKS = Packs(Path("results/generations"))
# Exports that keep a core busy for about as long as the exporter takes to warm up in a further process.
EXPORTS_OF_CORE = 8


def genotypes_of_pack(wildcards):
    """The genotypes of a pack's candidates, in the pack's order. They cannot change (see `train`)."""
    return [
        ancient(f"results/candidates/{member}/genotype.json")
        for member in PACKS.members(wildcards.pack)
    ]


def stage_of_pack(stage):
    """An input function: the folder in which a candidate's pack has the results of `stage`. For a candidate in no pack one
    that nobody can make, so that Snakemake turns to the next rule."""
    return lambda wildcards: f"results/packs/{PACKS.of(wildcards.candidate)}/{stage}"


# ---------------------------------------------------------------- devices


def all_cores(wildcards):
    """Every core of the machine that Snakemake runs on."""
    return workflow.resource_settings.cores or os.cpu_count()


def cores_of_device(wildcards):
    """This machine is measured with nothing else of ours running; a remote device leaves the cores here free."""
    return (
        all_cores(wildcards)
        if config["devices"][wildcards.device]["transport"] == "local"
        else 1
    )


def way_to_device(wildcards):
    """The device's entry without its budgets: another budget is no reason to measure again."""
    return {
        key: value
        for key, value in config["devices"][wildcards.device].items()
        if key not in costs.BUDGET_KEYS
    }


def print_summary():
    """The table that a run ends with."""
    file = Path("results/summary.json")
    if file.exists():
        print(summary.table(json.loads(file.read_text())))
