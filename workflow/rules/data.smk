"""From raw video to the crop cache, and what simple predictors make of it."""


rule simulate:
    output:
        "results/raw/{object}.h5",
    log:
        "logs/simulate/{object}.log",
    benchmark:
        "results/benchmarks/simulate/{object}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("simulate")
    resources:
        **cluster_resources("simulate"),
    params:
        simulate=config["dataset"]["simulate"],
        code=code("edgeloop.data.simulate", "edgeloop.data.meltpool"),
    script:
        "../scripts/simulate.py"


rule prepare:
    input:
        raw_files,
    output:
        cache="results/data/cache.json",
        arrays=[file for split in SPLITS for file in split_files(split)],
        indexes=expand("results/data/{split}.index.csv", split=SPLITS),
        parity="results/data/parity.npy",
        parity_targets="results/data/parity_targets.npy",
    log:
        "logs/prepare.log",
    benchmark:
        "results/benchmarks/prepare.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("prepare")
    resources:
        **cluster_resources("prepare"),
    params:
        source=config["dataset"]["source"],
        lit_threshold=config["dataset"]["lit_threshold"],
        clips_per_line=config["dataset"]["clips_per_line"],
        split=config["dataset"]["split"],
        code=code(
            "edgeloop.data.prepare",
            "edgeloop.data.raw",
            "edgeloop.data.split",
            "edgeloop.data.cache",
        ),
    script:
        "../scripts/prepare.py"


rule predict:
    input:
        split_files("train"),
        split_files("validation"),
    output:
        "results/predictors.json",
    log:
        "logs/predict.log",
    benchmark:
        "results/benchmarks/predict.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("predict")
    resources:
        **cluster_resources("predict"),
    params:
        code=code("edgeloop.predictors", "edgeloop.rmse"),
    script:
        "../scripts/predict.py"
