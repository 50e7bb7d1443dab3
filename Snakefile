"""Hardware-aware neural architecture search with the real edge device in the loop."""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# The demo's configuration, unless one is named with --configfile.
if not workflow.overwrite_configfiles:

    configfile: Path(workflow.basedir) / "config" / "config.yaml"


# One image for all rules, built from envs/edgeloop.def; used only with --software-deployment-method apptainer.
container: "envs/edgeloop.sif"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/device.smk"
include: "workflow/rules/propose.smk"
include: "workflow/rules/screen.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/export.smk"


if config["training"]["pack"] > 1 or POPULATIONS.any_packs():

    include: "workflow/rules/pack.smk"


include: "workflow/rules/measure.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/conclude.smk"
include: "workflow/rules/finalists.smk"
include: "workflow/rules/archive.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        "results/summary.json",
        "results/report.html",
        NOMINATED,
        bundles,
        # Said here too: a folder without Snakemake's notes, as an archive gives, shows by nothing else that a search is to
        # be longer.
        HISTORY,


# What talks to a device or takes a moment stays where Snakemake runs: compute nodes seldom reach the outside. Everything
# else goes to compute nodes, because login nodes are for everybody.
localrules:
    all,
    enrol,
    warm_start,
    propose,
    screen,
    sample,
    baseline,
    promote,
    measure,
    select,
    conclude,
    compare,
    nominate,
    measure_finalist,
    bundle,
    summarise,
    archive,
    report,


onstart:
    start_run()


onerror:
    print_owed()
    end_run()


onsuccess:
    print_summary()
