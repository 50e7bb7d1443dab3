"""The end of the search: front and baselines side by side on each device, and the figures that a user is shown."""


rule conclude:
    input:
        unpack(search_history),
    output:
        HISTORY,
    log:
        "logs/conclude.log",
    script:
        "../scripts/conclude.py"


rule compare:
    input:
        history=HISTORY,
        enrolment="results/devices/{device}.json",
    output:
        "results/comparison.{device}.json",
    log:
        "logs/compare/{device}.log",
    benchmark:
        "results/benchmarks/compare/{device}.tsv"
    threads: cores_of_device
    resources:
        edge=1,
    params:
        device=lambda wildcards: config["devices"][wildcards.device],
        timing=config["measurement"],
        code=code("edge"),
    script:
        "../scripts/compare.py"


rule summarise:
    input:
        history=HISTORY,
        comparisons=expand("results/comparison.{device}.json", device=DEVICES),
        enrolments=expand("results/devices/{device}.json", device=DEVICES),
        cache="results/data/cache.json",
        predictors="results/predictors.json",
    output:
        "results/summary.json",
    log:
        "logs/summarise.log",
    params:
        baselines=BASELINES,
        search=config["search"],
        code=code("edgeloop.summary"),
    script:
        "../scripts/summarise.py"
