"""Small networks in packs: one job trains, one exports several of them; see docs/architecture.md."""

if TRAINING["pack"] > 1 and PROCESSES_OF_TRAINING > 1:
    raise WorkflowError(
        f"'training.pack' is {TRAINING['pack']}, but one training has {PROCESSES_OF_TRAINING} processes ('training.processes', "
        "'training.gpus'): a network is either packed with others on one GPU or spread over several; set one of them to 1"
    )


# A candidate that is in no pack (of a generation that was decided without, or a baseline) lacks what `unpack` needs, and is
# left to the rules of its own.
ruleorder: unpack > train
ruleorder: unpack > export
ruleorder: unpack_short > train_short


rule train_pack:
    input:
        genotypes=genotypes_of_pack,
        starts=starts_of_pack,
        train=split_files("train"),
        validation=split_files("validation"),
        cache="results/data/cache.json",
    output:
        directory("results/packs/{pack}/train"),
    log:
        "logs/train_pack/{pack}.log",
    benchmark:
        "results/benchmarks/train_pack/{pack}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus_of_pack("train", TRAINING["threads"])
    resources:
        **cluster_resources("train"),
    params:
        training=training_settings(),
        code=rules.train.params.code,
    script:
        "../scripts/train_pack.py"


use rule train_pack as train_short_pack with:
    output:
        directory("results/packs/{pack}/rung.{rung}"),
    log:
        "logs/train_short_pack/{pack}.{rung}.log",
    benchmark:
        "results/benchmarks/train_short_pack/{pack}.{rung}.tsv"


rule export_pack:
    input:
        genotypes=genotypes_of_pack,
        train="results/packs/{pack}/train",
        parity="results/data/parity.npy",
        train_clips=rules.export.input.train_clips,
        validation=rules.export.input.validation,
    output:
        directory("results/packs/{pack}/export"),
    log:
        "logs/export_pack/{pack}.log",
    benchmark:
        "results/benchmarks/export_pack/{pack}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus_of_pack("export", 1 / EXPORTS_OF_CORE)
    resources:
        **cluster_resources("export"),
    params:
        code=rules.export.params.code,
    script:
        "../scripts/export_pack.py"


# From here on a candidate of a pack is one like any other.
rule unpack:
    input:
        train=stage_of_pack("train"),
        export=stage_of_pack("export"),
    output:
        train="results/candidates/{candidate}/train.json",
        weights="results/candidates/{candidate}/weights.pt",
        export="results/candidates/{candidate}/export.json",
        model="results/candidates/{candidate}/model.onnx",
    localrule: True
    shell:
        "cp {input.train:q}/{wildcards.candidate}.json {output.train:q} && "
        "cp {input.train:q}/{wildcards.candidate}.pt {output.weights:q} && "
        "cp {input.export:q}/{wildcards.candidate}.json {output.export:q} && "
        "cp {input.export:q}/{wildcards.candidate}.onnx {output.model:q}"


rule unpack_short:
    input:
        rung_of_pack,
    output:
        record="results/candidates/{candidate}/rung.{rung}.json",
        checkpoint="results/candidates/{candidate}/rung.{rung}.pt",
    localrule: True
    shell:
        "cp {input:q}/{wildcards.candidate}.json {output.record:q} && "
        "cp {input:q}/{wildcards.candidate}.pt {output.checkpoint:q}"
