"""The real device: how fast the network is there, and whether it computes there what was trained."""


rule measure:
    input:
        export="results/candidates/{candidate}/export.json",
        model="results/candidates/{candidate}/model.onnx",
        enrolment="results/devices/{device}.json",
        parity="results/data/parity.npy",
        parity_targets="results/data/parity_targets.npy",
    output:
        "results/candidates/{candidate}/measure.{device}.json",
    log:
        "logs/measure/{candidate}.{device}.log",
    benchmark:
        "results/benchmarks/measure/{candidate}.{device}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cores_of_device
    resources:
        **alone_on_device(),
    params:
        device=way_to_device,
        batch_sizes=further_batch_sizes,
        timing=config["measurement"],
        tolerances=precision.tolerances(config["parity"]),
        code=code("edge", "edgeloop.parity", "edgeloop.rmse"),
    script:
        "../scripts/measure.py"
