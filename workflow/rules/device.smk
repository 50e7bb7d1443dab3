"""The devices: what they are, and how fast they are at rest."""


rule enrol:
    output:
        "results/devices/{device}.json",
    log:
        "logs/enrol/{device}.log",
    benchmark:
        "results/benchmarks/enrol/{device}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cores_of_device
    resources:
        **alone_on_device(),
    params:
        device=way_to_device,
        code=code("edge"),
    script:
        "../scripts/enrol.py"
