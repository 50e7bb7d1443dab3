"""Which networks to consider."""


# Neither this rule nor `sample` has params: a decision that was taken is not taken again because a setting has changed.
# What must not change within one search is checked at the start (edgeloop.search.identity).
rule propose:
    input:
        state=state_to_decide_from,
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
