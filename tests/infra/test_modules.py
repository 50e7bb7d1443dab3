"""Jobs run in the environment that modules make, with the real environment-modules."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from searches import ROOT, Run

pytestmark = pytest.mark.infra
INIT = Path("/usr/share/modules/init/bash")


def test_jobs_load_the_modules_and_run_their_python(tmp_path):
    if not INIT.exists():
        pytest.skip("environment-modules is not installed (Debian: apt-get install environment-modules)")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    module = tmp_path / "modules/edgeloop/1.0"
    module.parent.mkdir(parents=True)
    module.write_text(f"#%Module\nprepend-path PATH {python.parent}\n")
    run = Run(tmp_path / "run", ROOT)
    run.folder.mkdir()
    run.config["cluster"] = {"modules": ["edgeloop/1.0"]}
    command = run.command("results/raw/S001.h5", "--software-deployment-method", "env-modules")
    shell = f'source {INIT}; module use {tmp_path}/modules; export -f module; exec "$@"'
    done = subprocess.run(
        [shutil.which("bash"), "-c", shell, "bash", *command], cwd=ROOT, capture_output=True, text=True, timeout=200,
        env={**os.environ, **run.environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Activating environment modules: edgeloop/1.0" in done.stderr
    assert "simulate.py" in (tmp_path / "used").read_text()
