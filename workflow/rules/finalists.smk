"""The front's best few on the full budget, and what is deployed of them. Only here are the test clips read."""

OF_FINALIST = "results/finalists/{candidate}/{seed}"


checkpoint nominate:
    input:
        HISTORY,
    output:
        "results/finalists.json",
    log:
        "logs/nominate.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        finalists={key: FINALISTS[key] for key in ("count", "rule")},
        code=code("edgeloop.finalists", "edgeloop.search.pareto"),
    script:
        "../scripts/nominate.py"


# The same stages as for a candidate, with a folder for each seed. Never from a checkpoint: that is of the search's seed.
use rule train as train_finalist with:
    input:
        genotype=rules.train.input.genotype,
        train=split_files("train"),
        validation=split_files("validation"),
        start=[],
    output:
        record=f"{OF_FINALIST}/train.json",
        weights=f"{OF_FINALIST}/weights.pt",
    log:
        "logs/train_finalist/{candidate}.{seed}.log",
    benchmark:
        "results/benchmarks/train_finalist/{candidate}.{seed}.tsv"
    params:
        training=finalist_training,
        processes=PROCESSES_OF_TRAINING,
        trained=True,
        code=rules.train.params.code,


use rule export as export_finalist with:
    input:
        genotype=rules.export.input.genotype,
        train=f"{OF_FINALIST}/train.json",
        weights=f"{OF_FINALIST}/weights.pt",
        parity=rules.export.input.parity,
        train_clips=rules.export.input.train_clips,
        validation=rules.export.input.validation,
    output:
        record=f"{OF_FINALIST}/export.json",
        model=f"{OF_FINALIST}/model.onnx",
    log:
        "logs/export_finalist/{candidate}.{seed}.log",
    benchmark:
        "results/benchmarks/export_finalist/{candidate}.{seed}.tsv"


use rule measure as measure_finalist with:
    input:
        export=f"{OF_FINALIST}/export.json",
        model=f"{OF_FINALIST}/model.onnx",
        enrolment=rules.measure.input.enrolment,
        parity=rules.measure.input.parity,
        parity_targets=rules.measure.input.parity_targets,
    output:
        f"{OF_FINALIST}/measure.{{device}}.json",
    log:
        "logs/measure_finalist/{candidate}.{seed}.{device}.log",
    benchmark:
        "results/benchmarks/measure_finalist/{candidate}.{seed}.{device}.tsv"


# Asked for by those alone who know the finalists: nobody reads the test clips before the search has ended.
rule evaluate:
    input:
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        train=f"{OF_FINALIST}/train.json",
        weights=f"{OF_FINALIST}/weights.pt",
        export=f"{OF_FINALIST}/export.json",
        model=f"{OF_FINALIST}/model.onnx",
        clips=split_files("test"),
        index="results/data/test.index.csv",
    output:
        record=f"{OF_FINALIST}/test.json",
        predictions=report(
            f"{OF_FINALIST}/predictions.csv",
            caption="../report/predictions.rst",
            category="Finalists",
            subcategory="{candidate}",
            labels={"part": "predictions", "seed": "{seed}"},
        ),
    log:
        "logs/evaluate/{candidate}.{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{candidate}.{seed}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("evaluate")
    resources:
        **cluster_resources("evaluate"),
    params:
        training=finalist_training,
        code=code(
            "edgeloop.final_test",
            "edgeloop.evaluation",
            "edgeloop.export",
            "edgeloop.rmse",
            "edgeloop.models",
            "edgeloop.data.cache",
        ),
    script:
        "../scripts/evaluate.py"


rule bundle:
    input:
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        records=lambda wildcards: of_seeds(wildcards.candidate, OF_SEED),
        models=lambda wildcards: of_seeds(wildcards.candidate, ["model.onnx"]),
        enrolments=expand("results/devices/{device}.json", device=DEVICES),
        cache="results/data/cache.json",
        parity="results/data/parity.npy",
    output:
        report(
            "results/finalists/{candidate}/bundle.zip",
            caption="../report/bundle.rst",
            category="Finalists",
            subcategory="{candidate}",
            labels={"part": "bundle", "seed": "lowest validation error"},
        ),
    log:
        "logs/bundle/{candidate}.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        tolerances=rules.measure.params.tolerances,
        code=code(
            "edgeloop.bundle",
            "edgeloop.bundle_card",
            "edgeloop.bundle_predict",
            "edgeloop.precision",
            "edgeloop.finalists",
        ),
    script:
        "../scripts/bundle.py"
