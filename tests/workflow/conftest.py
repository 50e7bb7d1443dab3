"""Real runs of the real Snakemake on a tiny search. One finished run is shared; tests that change it work on a copy."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())


@dataclass
class Run:
    """A folder with a search in it. `source` is the checkout whose workflow and packages are used."""

    folder: Path
    source: Path
    config: dict = field(default_factory=lambda: yaml.safe_load(yaml.safe_dump(TINY)))

    def command(self, *arguments):
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return [
            sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(self.source / "Snakefile"),
            "--directory", str(self.folder), *arguments, "--configfile", str(file),
        ]  # fmt: skip

    @property
    def environment(self):
        # A copy of the sources comes before the installed ones.
        return {**os.environ, "PYTHONPATH": f"{self.source}:{self.source}/src", "PYTHONUNBUFFERED": "1"}

    def snakemake(self, *arguments, fails=False):
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.source, capture_output=True, text=True, timeout=400
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output

    def jobs(self, *arguments):
        """How many jobs of each rule a run would execute now: of what is known before checkpoints are evaluated."""
        output = self.snakemake("--dry-run", *arguments)
        return Counter(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", output, re.MULTILINE))

    def executed(self, output):
        """How many jobs of each rule a run did execute."""
        return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))

    def path(self, name):
        return self.folder / "results" / name

    def contents(self, pattern):
        """The bytes of all result files of a pattern."""
        return {file.relative_to(self.folder): file.read_bytes() for file in sorted(self.path("").glob(pattern))}


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A copy of the sources: a test may edit them (see `edited`) while others are as they are."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("Snakefile", "config", "edge", "profiles", "src", "tests/configs", "workflow"):
        origin, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(origin, target)
    return folder


@pytest.fixture
def edited(source):
    """Changes a file of the sources in a way that changes nothing of what it does; undone at the end of the test."""
    originals = {}

    def edit(name):
        file = source / name
        originals[file] = file.read_bytes()
        file.write_bytes(originals[file] + b"\nEDITED_BY_A_TEST = True\n")

    yield edit
    for file, content in originals.items():
        file.write_bytes(content)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, source):
    """A finished tiny search: its folder must not be changed."""
    run = Run(tmp_path_factory.mktemp("finished"), source)
    run.output = run.snakemake()
    return run


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished search that a test may change."""
    shutil.copytree(finished.folder, tmp_path / "run", dirs_exist_ok=True)
    return Run(tmp_path / "run", finished.source)
