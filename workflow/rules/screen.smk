"""How fast the proposals are: latency needs no trained weights."""


rule draft:
    input:
        "results/generations/{gen}/proposals.json",
    output:
        temp(directory("results/generations/{gen}/drafts")),
    log:
        "logs/draft/{gen}.log",
    benchmark:
        "results/benchmarks/draft/{gen}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cpus("draft")
    resources:
        **cluster_resources("draft"),
    script:
        "../scripts/draft.py"


rule screen:
    input:
        proposals="results/generations/{gen}/proposals.json",
        drafts="results/generations/{gen}/drafts",
        enrolment="results/devices/{device}.json",
    output:
        "results/generations/{gen}/screening.{device}.json",
    log:
        "logs/screen/{gen}.{device}.log",
    benchmark:
        "results/benchmarks/screen/{gen}.{device}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    threads: cores_of_device
    resources:
        **alone_on_device(),
    params:
        device=way_to_device,
        timing=config["measurement"],
        code=code("edge"),
    script:
        "../scripts/screen.py"
