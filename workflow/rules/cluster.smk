"""Where jobs run and what they ask for there. On one machine only the number of threads counts."""

import os
import sys
from functools import cache

from snakemake.logging import logger

from edgeloop import orphans, resources, slurm
from edgeloop.attempts import ATTEMPTS

CLUSTER = config["cluster"]
# With --software-deployment-method conda or env-modules; without it jobs run in the environment that Snakemake runs in.
ENVIRONMENT = "../../envs/edgeloop.yaml"
MODULES = CLUSTER["modules"]
TRAINING = config["training"]
FINALISTS = config["finalists"]
# --jobs counts cluster jobs; without a cluster there is only --cores.
ON_CLUSTER = workflow.resource_settings.nodes is not None


def gpus_of_training():
    """GPUs of one training: as the config says, else one where nodes have GPUs."""
    if TRAINING["gpus"] is not None:
        return TRAINING["gpus"]
    return int(CLUSTER["gpus_per_node"] > 0 and TRAINING["device"] != "cpu")


try:
    NODES_OF_TRAINING = resources.nodes(gpus_of_training(), CLUSTER["gpus_per_node"])
except ValueError as error:
    raise WorkflowError(str(error))

PROCESSES_OF_TRAINING = TRAINING["processes"] or max(1, gpus_of_training())


# For envs/edgeloop.post-deploy.sh.
os.environ.update(EDGELOOP_ROOT=str(ROOT))
if ON_CLUSTER and workflow.is_main_process:
    slurm.prefer(ROOT / "slurm/bin")


def training_settings():
    """What decides a training's result: how it is packed and on how many GPUs it runs is no reason to train again."""
    others = ("pack", "gpus", "processes")
    return {key: value for key, value in TRAINING.items() if key not in others}


def finalist_training(wildcards):
    """How a finalist trains: on the full budget, to the end, and each time with a seed that the search has not used."""
    return training_settings() | {
        "epochs": FINALISTS["epochs"] or TRAINING["epochs"],
        "clips": FINALISTS["clips"],
        "seed": TRAINING["seed"] + int(wildcards.get("seed", 0)),
        "early_stopping": {"after": [], "above": []},
    }


def clips_of(split):
    """How many clips a split has; an assumption as long as the data are not prepared."""
    cache_file = Path("results/data/cache.json")
    if not cache_file.exists():
        return resources.UNKNOWN_CLIPS
    return content(cache_file)["splits"][split]["clips"]


def training_clips(most):
    """How many clips a training of at most `most` reads."""
    clips = clips_of("train")
    return min(clips, most or clips)


@cache
def size_of(candidate):
    """The size of a candidate's network, from its genotype.json; None in a folder of an edgeloop that did not write it.

    As long as there is no such file, FileNotFoundError: Snakemake asks again once there is.
    """
    file = Path(f"results/candidates/{candidate}/genotype.json")
    about = json.loads(file.read_text())
    if "size" not in about:
        return None
    genotype = about["genotype"]
    batch_size = genotype["training"].get("batch_size", 32)
    return {
        **about["size"],
        "batch_size": batch_size,
        "precision": genotype["precision"],
    }


def demand(stage, wildcards):
    """What a job of `stage` needs: from the sizes of its networks where they are known."""
    if stage not in ("train", "export"):
        return resources.USUAL[stage]
    sizes = [size for size in map(size_of, members_of_job(wildcards)) if size]
    if stage == "export":
        return resources.export_demand(sizes, validation_clips=clips_of("validation"))
    training = finalist_training(wildcards) if wildcards.get("seed") else TRAINING
    return resources.training_demand(
        sizes,
        clips=training_clips(training["clips"]),
        epochs=rung_of(wildcards) or training["epochs"],
        threads=TRAINING["threads"],
        processes=PROCESSES_OF_TRAINING,
        gpus=gpus_of_training(),
        at_once=side_by_side(len(sizes)),
    )


def side_by_side(members):
    """How many of the `members` of a job train at the same time."""
    if not gpus_of_training() and (
        asked := config["resources"].get("train", {}).get("cpus")
    ):
        members = min(members, asked // TRAINING["threads"])
    return max(1, members)


def members_of_job(wildcards):
    """The candidates that a job trains or exports."""
    pack = wildcards.get("pack")
    return POPULATIONS.members(pack) if pack else [wildcards.candidate]


def attempts():
    """How often a job is tried in all; in a job itself Snakemake does not know, and for --report it runs none."""
    settings = workflow.execution_settings
    return settings.retries + 1 if settings else 1


def asked_for(stage):
    """What the config asks for a stage. What evaluates runs where what trains does, unless it is told otherwise."""
    setting = config["resources"].get(stage, {})
    if stage != "evaluate":
        return setting
    training = config["resources"].get("train", {})
    return {
        **{key: training.get(key) for key in ("partition", "account")},
        **{key: value for key, value in setting.items() if value is not None},
    }


def cluster_resources(stage):
    """The resources of a heavy rule, to be given as `**cluster_resources("train")`."""
    setting = asked_for(stage)
    asked = {
        # For scripts: which attempt this is. Never among params, where it would be a reason to run again.
        "attempt": lambda wildcards, attempt: attempt,
        "mem_mb": lambda wildcards, attempt: resources.memory_mb(
            setting.get("mem_mb") or demand(stage, wildcards).mem_mb,
            CLUSTER["node_mem_mb"],
            attempt,
            attempts(),
        ),
        "runtime": lambda wildcards, attempt: resources.runtime_min(
            setting.get("runtime_min") or demand(stage, wildcards).runtime_min,
            CLUSTER["max_runtime_min"],
            attempt,
        ),
        "slurm_partition": setting.get("partition"),
        "slurm_account": setting.get("account"),
        "gres": setting.get("gres"),
    }
    if stage == "train":
        if asked["gres"] is None and gpus_of_training():
            asked["gres"] = f"gpu:{gpus_of_training() // NODES_OF_TRAINING}"
        if NODES_OF_TRAINING > 1:
            # The script itself starts its processes with srun.
            asked |= {
                "mpi": "srun",
                "nodes": NODES_OF_TRAINING,
                "tasks": PROCESSES_OF_TRAINING,
                "tasks_per_gpu": 0,
            }
    elif stage == "evaluate" and asked["gres"] is None and gpus_of_training():
        asked["gres"] = "gpu:1"
    return {name: value for name, value in asked.items() if value is not None}


def cpus(stage):
    """CPUs of a heavy rule: as the config says, else what the stage needs; on one machine never more than it has."""
    asked = config["resources"].get(stage, {}).get("cpus")
    if asked:
        return asked
    if stage == "train":
        within = PROCESSES_OF_TRAINING if NODES_OF_TRAINING == 1 else 1
        return TRAINING["threads"] * within
    if stage == "draft" and not ON_CLUSTER:
        return workflow.cores
    return resources.USUAL[stage].cpus


def cpus_of_pack(stage, each):
    """The threads of a pack's job: as the config says, else `each` for every member; on one machine never more than it has."""
    asked = config["resources"].get(stage, {}).get("cpus")
    return lambda wildcards: asked or math.ceil(
        each * len(POPULATIONS.members(wildcards.pack))
    )


def overview():
    """How large a search this is, in words: a dry run sees no further than the next checkpoint."""
    search = config["search"]
    most = search["max_generations"] * search["generation_size"]
    gpus = gpus_of_training()
    each = f", trained on {gpus} GPUs each" if gpus else ""
    halved, left = "", search["generation_size"]
    for rung in search["halving"]["epochs"]:
        left = math.ceil(left / search["halving"]["factor"])
        halved += f", {left} of them left after {rung} epochs"
    packed = f", {TRAINING['pack']} in one job" if TRAINING["pack"] > 1 else ""
    finalists = ""
    if FINALISTS["count"]:
        finalists = f", the best {FINALISTS['count']} trained again with {FINALISTS['seeds']} seeds"
    pool = config["screening"]["pool"]
    screened = f" out of {pool} screened" if pool else ""
    return (
        f"edgeloop: up to {most} candidates of {config['space']} in {search['max_generations']} generations of "
        f"{search['generation_size']}{screened}{halved}{each}{packed}{finalists}, measured on "
        + ", ".join(
            f"{name} ({about['transport']})"
            for name, about in config["devices"].items()
        )
    )


if workflow.is_main_process:
    logger.info(overview())


def start_run():
    """Before the first job: the data are there, and no job of an earlier run of this folder is at work on the same files."""
    if not raw_files(None):
        raise WorkflowError(
            f"'dataset.path': there are no HDF5 files (*.h5, *.hdf5) in {config['dataset']['path']}: put them there, or "
            "name the folder that has them"
        )
    os.environ[ATTEMPTS] = str(attempts())
    slurm_run = getattr(workflow.scheduler._executor, "run_uuid", None)
    try:
        orphans.begin(Path.cwd(), slurm_run)
    except (orphans.OrphansError, slurm.SlurmError) as error:
        raise WorkflowError(str(error))
    if any(
        job.rule.name not in ("all", "archive") for job in workflow.dag.needrun_jobs()
    ):
        journal.note(Path.cwd(), sys.argv, config, workflow.resource_settings.cores)


def end_run():
    """When a run fails or is interrupted no job of it stays at work. After an error of the executor itself they go on:
    they may have taken hours, and `make resume` is there."""
    if workflow.scheduler._executor_error is not None:
        return
    try:
        left = orphans.end(Path.cwd())
    except slurm.SlurmError as error:
        logger.error(
            f"edgeloop: whether Slurm jobs of this run are still at work is not known: {error}. Once Slurm answers: "
            "python -m edgeloop orphans --cancel"
        )
    else:
        if left:
            logger.info(
                f"edgeloop: cancelled {left} Slurm jobs that were still at work"
            )
