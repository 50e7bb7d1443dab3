"""Which of the proposals to train. The checkpoint that drives the loop."""


checkpoint sample:
    input:
        state=state_to_decide_from,
        warm_start=ancient("results/warm_start.json"),
        proposals="results/generations/{gen}/proposals.json",
        screening=screening_to_decide_from,
    output:
        population="results/generations/{gen}/population.json",
    log:
        "logs/sample/{gen}.log",
    benchmark:
        "results/benchmarks/sample/{gen}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    script:
        "../scripts/sample.py"


# A candidate's genotype is written by `sample`; a baseline's stands in the config.
rule baseline:
    output:
        "results/candidates/{candidate}/genotype.json",
    log:
        "logs/baseline/{candidate}.log",
    wildcard_constraints:
        candidate="|".join(BASELINES) or "none",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        baseline=lambda wildcards: config["baselines"][BASELINES[wildcards.candidate]],
    script:
        "../scripts/baseline.py"
