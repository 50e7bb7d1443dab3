"""Configuration and every input function."""

import json
import math
import os
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from edge import Device
from edgeloop import apart, devices, journal, precision, summary, yamlfile
from edgeloop import config as configuration
from edgeloop.archive import ArchiveError, name_of, sources
from edgeloop.fingerprint import code
from edgeloop.populations import FULL, Populations, rung_before, rungs
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
        devices.check_enrolled(config["devices"], Path("results/devices"))
except ValueError as error:
    raise WorkflowError(str(error))


SPLITS = ("train", "validation", "test", "unlabelled")
DEVICES = list(config["devices"])
# Of the devices that decide. The others measure what the search has trained when it has ended.
BUDGETS = costs.budgets(config)
BASELINES = {
    candidate_id(configuration.baseline_genotype(baseline)): name
    for name, baseline in config["baselines"].items()
}


wildcard_constraints:
    candidate="[0-9a-f]{12}",
    device="|".join(DEVICES),
    gen=r"\d{3}",
    pack="[0-9a-f]{12}",
    rung=r"[1-9]\d*",
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


POPULATIONS = Populations(Path("results/generations"))


@cache
def _content(file, changed_at):
    return json.loads(Path(file).read_text())


def content(file):
    """The JSON value in a checkpoint's output, parsed once: it is asked for again and again."""
    return _content(str(file), Path(file).stat().st_mtime_ns)


def population(gen):
    """What was decided for a generation; no candidates once the search has stopped."""
    return content(checkpoints.sample.get(gen=gen).output.population)


def entrants(gen, rung=FULL):
    """The candidates of a generation that are trained up to `rung`, or in full."""
    decided = population(gen)
    before = rung_before(rungs(decided), rung)
    if before is None:
        return decided["candidates"]
    return content(checkpoints.promote.get(gen=gen, rung=before).output[0])[
        "candidates"
    ]


def short_trainings(gen):
    """The records of a generation that is halved, of all rungs."""
    return [
        f"results/candidates/{candidate}/rung.{rung}.json"
        for rung in rungs(population(gen))
        for candidate in entrants(gen, rung)
    ]


def start_of_training(candidate, rung=FULL):
    """The record and the checkpoint of the rung before; none for the first and for what is trained in one go."""
    before = rung_before(POPULATIONS.rungs(candidate), rung)
    if before is None:
        return []
    folder = f"results/candidates/{candidate}"
    return [f"{folder}/rung.{before}.{part}" for part in ("json", "pt")]


def records_to_promote_from(wildcards):
    """The training records of all that came to a rung; as with `decision`, what was decided stays decided."""
    files = [
        f"results/candidates/{candidate}/rung.{wildcards.rung}.json"
        for candidate in entrants(wildcards.gen, rung_of(wildcards))
    ]
    promoted = Path(
        f"results/generations/{wildcards.gen}/promoted.{wildcards.rung}.json"
    )
    return ancient(files) if promoted.exists() else files


def start_of_leg(wildcards):
    """As start_of_training, for a job that trains one candidate."""
    return start_of_training(wildcards.candidate, rung_of(wildcards))


def rung_of(wildcards):
    """The rung that a job trains up to."""
    return int(wildcards.rung) if "rung" in wildcards.keys() else FULL


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
    """The screening on all devices that decide, or on those that did when the generation was decided."""
    decided = decision(wildcards.gen)
    files = expand(
        "results/generations/{gen}/screening.{device}.json",
        gen=wildcards.gen,
        device=decided["devices"] if decided else BUDGETS,
    )
    return ancient(files) if decided else files


# The end of the search carries in its name how long the search may be: Snakemake does not run a rule again because its
# checkpoint has yet to be made, but it does make a file that is missing. So it also goes when somebody removes the generations.
HISTORY = f"results/generations/history.{config['search']['max_generations']}.json"


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
    return lambda wildcards: records_of(entrants(wildcards.gen))[kind]


def generation_measurements(wildcards):
    """The measurements of a generation that decide."""
    return [
        f"results/candidates/{candidate}/measure.{device}.json"
        for candidate in entrants(wildcards.gen)
        for device in BUDGETS
    ]


def search_history(wildcards):
    """All states and all records up to the generation in which the search stopped: asks for one generation at a time.
    Input of the one rule that ends the search."""
    states, candidates, short = [], set(), []
    for number in range(config["search"]["max_generations"]):
        gen = f"{number:03d}"
        if not population(gen)["candidates"]:
            break
        states.append(f"results/generations/{gen}/state.json")
        short += short_trainings(gen)
        candidates.update(entrants(gen))
    records = records_of(sorted(candidates - BASELINES.keys()))
    return {"states": states, "short": short, **records}


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

# Exports that keep a core busy for about as long as the exporter takes to warm up in a further process.
EXPORTS_OF_CORE = 8


def genotypes_of_pack(wildcards):
    """The genotypes of a pack's candidates, in the pack's order. They cannot change (see `train`)."""
    return [
        ancient(f"results/candidates/{member}/genotype.json")
        for member in POPULATIONS.members(wildcards.pack)
    ]


def starts_of_pack(wildcards):
    """As start_of_training, for all candidates of a pack."""
    return [
        file
        for member in POPULATIONS.members(wildcards.pack)
        for file in start_of_training(member, rung_of(wildcards))
    ]


def stage_of_pack(stage):
    """An input function: the folder in which a candidate's pack has the results of `stage`. For a candidate in no pack one
    that nobody can make, so that Snakemake turns to the next rule."""
    return (
        lambda wildcards: f"results/packs/{POPULATIONS.pack(wildcards.candidate)}/{stage}"
    )


def rung_of_pack(wildcards):
    """As stage_of_pack, for the training up to a rung."""
    pack = POPULATIONS.pack(wildcards.candidate, rung_of(wildcards))
    return f"results/packs/{pack}/rung.{wildcards.rung}"


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
    """The device's entry without its budgets: another budget is no reason to measure again. Nor are further batch sizes,
    but for the rule that reports them."""
    return {
        key: value
        for key, value in config["devices"][wildcards.device].items()
        if key not in (*costs.BUDGET_KEYS, "batch_sizes")
    }


def further_batch_sizes(wildcards):
    """Those besides single clips, which are always measured."""
    sizes = config["devices"][wildcards.device].get("batch_sizes") or []
    return [size for size in sizes if size > 1]


# Each device has a resource of its own, of which there is one: devices are measured side by side, each of them by one job.
# (By number, as a resource may not have every name that a device may.)
for number in range(len(DEVICES)):
    workflow.register_resource(f"device_{number}", 1)


def alone_on_device():
    """The resources of a job that has its device for itself."""
    return {
        f"device_{number}": lambda wildcards, name=name: int(wildcards.device == name)
        for number, name in enumerate(DEVICES)
    }


def print_owed():
    """What a device that was away has yet to do, when a run ends without its summary."""
    for line in devices.owed(Path("results"), DEVICES, list(BUDGETS)):
        print(f"{line}. Run again when it is back: nothing that is done is repeated.")


# ---------------------------------------------------------------- archive


def sources_to_archive(wildcards):
    """The commit of the sources, and what is changed there where that may be archived."""
    try:
        return sources.require_clean(ROOT, config["archive"]["changes"])
    except ArchiveError as error:
        raise WorkflowError(str(error))


def print_summary():
    """The table that a run ends with."""
    file = Path("results/summary.json")
    if file.exists():
        print(summary.table(json.loads(file.read_text())))
