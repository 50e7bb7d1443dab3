"""Left-over processes of a run on one machine, with real processes; Slurm jobs are in tests/slurm."""

import json
import os
import socket
import subprocess
import sys

import psutil
import pytest

from edgeloop import orphans
from edgeloop.slurm import SlurmError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def spawn(monkeypatch):
    monkeypatch.delenv(orphans.RUN, raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    children = []

    def start(**environment):
        children.append(subprocess.Popen(SLEEP, env={**os.environ, **environment}))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def dead(folder, **changes):
    """A run that is written down in `folder`, and whose own process is gone."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    about = {"name": "edgeloop_1", "slurm": False, "host": socket.gethostname(), "pid": ended.pid, "started": 1.0}
    (folder / ".snakemake").mkdir(exist_ok=True)
    (folder / ".snakemake/edgeloop-run.json").write_text(json.dumps(about | changes))


def test_a_run_is_written_down_and_its_processes_know_its_name(tmp_path, monkeypatch):
    monkeypatch.delenv(orphans.RUN, raising=False)
    orphans.begin(tmp_path, None)
    written = json.loads((tmp_path / ".snakemake/edgeloop-run.json").read_text())
    assert os.environ[orphans.RUN] == written["name"] and written["pid"] == os.getpid()
    monkeypatch.delenv(orphans.RUN)


def test_only_processes_of_the_run_are_ended(tmp_path, spawn):
    dead(tmp_path)
    own, other, foreign = spawn(EDGELOOP_RUN="edgeloop_1"), spawn(EDGELOOP_RUN="edgeloop_11"), spawn()
    assert orphans.describe(tmp_path) == [f"process {own.pid}: {' '.join(SLEEP)}"]
    assert orphans.cancel(tmp_path) == 1
    assert not psutil.pid_exists(own.pid)
    assert other.poll() is None and foreign.poll() is None


def test_a_new_run_is_refused_while_processes_of_the_last_one_are_at_work(tmp_path, spawn):
    dead(tmp_path)
    child = spawn(EDGELOOP_RUN="edgeloop_1")
    with pytest.raises(orphans.OrphansError, match=rf"1 processes of an earlier run .*PID {child.pid}\).*make resume"):
        orphans.begin(tmp_path, None)


def test_a_run_that_is_alive_is_left_alone(tmp_path, spawn):
    child = spawn(EDGELOOP_RUN="edgeloop_1")
    dead(tmp_path, pid=child.pid, started=psutil.Process(child.pid).create_time())
    with pytest.raises(orphans.OrphansError, match=f"is alive .*kill -INT {child.pid}"):
        orphans.cancel(tmp_path)
    assert child.poll() is None


def test_a_process_that_got_a_dead_ones_number_is_not_taken_for_it(tmp_path, spawn):
    child = spawn()
    dead(tmp_path, pid=child.pid, started=1.0)
    assert orphans.cancel(tmp_path) == 0
    assert child.poll() is None


def test_where_no_run_was_there_is_nothing_to_end(tmp_path):
    assert orphans.cancel(tmp_path) == 0 and orphans.describe(tmp_path) == []


def test_the_command_line_says_what_is_left(tmp_path, spawn):
    command = [sys.executable, "-m", "edgeloop", "orphans"]
    dead(tmp_path)
    child = spawn(EDGELOOP_RUN="edgeloop_1")
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert listed.startswith(f"process {child.pid}:")
    ended = subprocess.run([*command, "--cancel"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "1 jobs and processes ended" in ended
    assert "nothing is left" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout


@pytest.mark.parametrize("own", [False, True])
def test_only_the_run_itself_asks_for_its_jobs_when_it_ends(own, tmp_path, monkeypatch):
    dead(tmp_path, slurm=True, **({"pid": os.getpid()} if own else {}))
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no Slurm
    if own:
        with pytest.raises(SlurmError, match="no command squeue"):
            orphans.end(tmp_path)
    else:
        assert orphans.end(tmp_path) == 0
