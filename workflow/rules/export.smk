"""From PyTorch to one self-contained ONNX file."""


rule export:
    input:
        genotype=ancient("results/candidates/{candidate}/genotype.json"),
        train="results/candidates/{candidate}/train.json",
        weights="results/candidates/{candidate}/weights.pt",
        parity="results/data/parity.npy",
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
        code=code("edgeloop.export", "edgeloop.parity", "edgeloop.models"),
    script:
        "../scripts/export.py"
