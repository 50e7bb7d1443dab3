"""Which networks to consider."""


# A copy of what earlier runs have found, so that this one can be repeated when they are gone.
rule warm_start:
    output:
        "results/warm_start.json",
    log:
        "logs/warm_start.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        runs=config["search"]["warm_start"],
    script:
        "../scripts/warm_start.py"


# Neither this rule nor `sample` has params: a decision that was taken is not taken again because a setting has changed.
# What must not change within one search is checked at the start (edgeloop.search.identity).
rule propose:
    input:
        state=state_to_decide_from,
        # Another list of earlier runs counts from the next generation on.
        warm_start=ancient("results/warm_start.json"),
    output:
        "results/generations/{gen}/proposals.json",
    log:
        "logs/propose/{gen}.log",
    benchmark:
        "results/benchmarks/propose/{gen}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    script:
        "../scripts/propose.py"
