"""Real runs of the real Snakemake on a tiny search. One finished run is shared; tests that change it work on a copy."""

import shutil

import pytest
from searches import Run, commit, copy_sources


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A checkout of the sources: a test may edit them (see `edited`) while others are as they are."""
    folder = copy_sources(tmp_path_factory.mktemp("source"))
    commit(folder)
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
