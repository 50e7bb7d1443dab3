"""What the generation has taught: front, hypervolume, and whether to go on."""


rule select:
    input:
        state=previous_state,
        proposals="results/generations/{gen}/proposals.json",
        population="results/generations/{gen}/population.json",
        screening=expand(
            "results/generations/{{gen}}/screening.{device}.json", device=BUDGETS
        ),
        short=lambda wildcards: short_trainings(wildcards.gen),
        train=generation_records("train"),
        export=generation_records("export"),
        measured=generation_measurements,
        predictors="results/predictors.json",
    output:
        "results/generations/{gen}/state.json",
    log:
        "logs/select/{gen}.log",
    benchmark:
        "results/benchmarks/select/{gen}.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        budgets=BUDGETS,
        objectives=config["search"]["objectives"][1:],
        device=costs.objective_device(config),
        patience=config["search"]["patience"],
        code=code(
            "edgeloop.search.state",
            "edgeloop.search.pareto",
            "edgeloop.search.costs",
            "edgeloop.precision",
        ),
    script:
        "../scripts/select.py"
