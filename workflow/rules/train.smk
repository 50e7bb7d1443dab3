"""Training, the heavy part."""


rule train:
    input:
        # The candidate's id is a digest of this file: it cannot change.
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        train=split_files("train"),
        validation=split_files("validation"),
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
            "edgeloop.evaluation",
            "edgeloop.rmse",
            "edgeloop.compute",
            "edgeloop.models",
            "edgeloop.data.cache",
            *(["edgeloop.distributed"] if PROCESSES_OF_TRAINING > 1 else []),
        ),
    script:
        "../scripts/train.py"
