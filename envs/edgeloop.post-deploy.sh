#!/usr/bin/env bash
# Snakemake runs this once in the new conda environment: scripts there import the package of this very checkout.
set -euo pipefail
: "${EDGELOOP_ROOT:?is set by the workflow to the root of the checkout}"
pip install --no-deps --no-build-isolation --editable "$EDGELOOP_ROOT"
