"""The finished run as one file. `snakemake archive`; nothing else asks for it."""


rule archive:
    input:
        "results/summary.json",
        "results/report.html",
        NOMINATED,
        bundles,
    output:
        f"results/archive/{name_of(config)}.zip",
    log:
        "logs/archive.log",
    conda:
        ENVIRONMENT
    envmodules:
        *MODULES,
    params:
        # Asked for only where an archive is made. Sources that may not be archived are told before the first job.
        sources=sources_to_archive,
        archive=config["archive"],
    script:
        "../scripts/archive.py"
