"""The page that a run is looked at with."""


rule report:
    input:
        summary="results/summary.json",
        history=HISTORY,
        comparisons=expand("results/comparison.{device}.json", device=DEVICES),
        nominated=NOMINATED,
        finalists=final_records,
        predictions=final_predictions,
        parity="results/data/parity.npy",
        parity_targets="results/data/parity_targets.npy",
    output:
        page=report(
            "results/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"part": "the page"},
        ),
        figures=report(
            directory("results/report"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="Report",
            subcategory="Figures",
            labels={"part": "{figure}"},
        ),
    log:
        "logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        code=code("edgeloop.report"),
    script:
        "../scripts/report.py"
