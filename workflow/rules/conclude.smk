"""The end of the search: front and baselines side by side on each device, and the figures that a user is shown."""


rule conclude:
    input:
        unpack(search_history),
        # Asked for on their own, so that they are trained and measured while the search is still busy elsewhere.
        baselines=[file for files in records_of(BASELINES).values() for file in files],
    output:
        HISTORY,
    log:
        "logs/conclude.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        baselines=records_of(BASELINES),
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
        "../scripts/compare.py"


rule summarise:
    input:
        history=HISTORY,
        comparisons=expand("results/comparison.{device}.json", device=DEVICES),
        enrolments=expand("results/devices/{device}.json", device=DEVICES),
        cache="results/data/cache.json",
        predictors="results/predictors.json",
        nominated=NOMINATED,
        finalists=final_records,
        # Asked for on their own, so that they are at work while the search is still busy elsewhere.
        baselines=baselines_records,
    output:
        "results/summary.json",
    log:
        "logs/summarise.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        baselines=BASELINES,
        search={
            key: config["search"][key]
            for key in ("strategy", "seed", "max_generations")
        },
        code=code("edgeloop.summary", "edgeloop.finalists", "edgeloop.precision"),
    script:
        "../scripts/summarise.py"
