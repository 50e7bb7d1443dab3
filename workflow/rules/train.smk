"""Training, the heavy part: in one go, or in legs where a generation is halved."""


rule train:
    input:
        # The candidate's id is a digest of this file: it cannot change.
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        train=split_files("train"),
        validation=split_files("validation"),
        start=start_of_leg,
    output:
        record="results/candidates/{candidate}/train.json",
        weights="results/candidates/{candidate}/weights.pt",
    log:
        "logs/train/{candidate}.log",
    benchmark:
        "results/benchmarks/train/{candidate}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("train")
    resources:
        **cluster_resources("train"),
    params:
        training=training_settings(),
        processes=PROCESSES_OF_TRAINING,
        trained=is_trained,
        code=code(
            "edgeloop.training",
            "edgeloop.recipe",
            "edgeloop.early_stopping",
            "edgeloop.evaluation",
            "edgeloop.rmse",
            "edgeloop.compute",
            "edgeloop.models",
            "edgeloop.data.cache",
            *(["edgeloop.distributed"] if PROCESSES_OF_TRAINING > 1 else []),
        ),
    script:
        "../scripts/train.py"


# Up to a rung of successive halving. `train` goes on from its checkpoint, if this candidate does.
use rule train as train_short with:
    output:
        record="results/candidates/{candidate}/rung.{rung}.json",
        checkpoint="results/candidates/{candidate}/rung.{rung}.pt",
    log:
        "logs/train_short/{candidate}.{rung}.log",
    benchmark:
        "results/benchmarks/train_short/{candidate}.{rung}.tsv"


# Which of those that came so far go on. As `sample`, it has no params and decides once.
checkpoint promote:
    input:
        population=ancient("results/generations/{gen}/population.json"),
        records=records_to_promote_from,
    output:
        "results/generations/{gen}/promoted.{rung}.json",
    log:
        "logs/promote/{gen}.{rung}.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    script:
        "../scripts/promote.py"
