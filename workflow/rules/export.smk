"""From PyTorch to one self-contained ONNX file."""


rule export:
    input:
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        train="results/candidates/{candidate}/train.json",
        weights="results/candidates/{candidate}/weights.pt",
        parity="results/data/parity.npy",
        # Read where the precision is not fp32: to calibrate, and for the quality of what is deployed.
        train_clips=split_files("train"),
        validation=split_files("validation"),
    output:
        record="results/candidates/{candidate}/export.json",
        model="results/candidates/{candidate}/model.onnx",
    log:
        "logs/export/{candidate}.log",
    benchmark:
        "results/benchmarks/export/{candidate}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("export")
    resources:
        **cluster_resources("export"),
    params:
        code=code(
            "edgeloop.export",
            "edgeloop.conversion",
            "edgeloop.slices",
            "edgeloop.parity",
            "edgeloop.rmse",
            "edgeloop.models",
        ),
    script:
        "../scripts/export.py"
