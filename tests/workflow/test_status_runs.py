"""What `python -m edgeloop status` says of a run in progress, a copy of it, one that was killed, one that has ended."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from searches import Run

from edgeloop.records import read_json

pytestmark = pytest.mark.workflow


def status(folder, run):
    return run.edgeloop("status", "--directory", folder)


def test_of_a_finished_run_it_shows_counts_front_hypervolume_and_device(finished):
    said = status(finished.folder, finished)
    state = read_json(finished.path("generations/001/state.json"))
    assert f"{finished.folder}: finished" in said
    assert "2 generations; 8 networks proposed, 4 trained, 0 failed, 0 over budget" in said
    assert f"front so far, {len(state['front'])}" in said
    for candidate in state["front"]:
        loss, latency = state["candidates"][candidate]["objectives"]
        assert re.search(rf"^{candidate} .* {loss:.4f} +{latency:.4g}$", said, re.MULTILINE)
    assert ", ".join(f"{value:.4f}" for value in state["hypervolume"]) in said
    assert re.search(r"^device this-machine: .*, reference \d\.\d{3} ms; idle; measured \d", said, re.MULTILINE)
    assert "time left" not in said


def test_it_tells_the_same_of_a_copy_that_holds_the_results_alone(finished, tmp_path):
    for name in ("results", "logs"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    after_the_head = [said.partition("\n")[2].partition("\ndevice")[0] for said in
                      (status(finished.folder, finished), status(tmp_path, finished))]  # fmt: skip
    assert after_the_head[0] == after_the_head[1]


def test_an_empty_folder_holds_no_run_and_a_missing_one_is_an_error(finished, tmp_path):
    assert "no run has begun here" in status(tmp_path, finished)
    said = finished.edgeloop("status", "--directory", tmp_path / "none", code=1)
    assert f"there is no folder {tmp_path / 'none'}" in said


def test_watching_needs_a_terminal(finished):
    assert "--watch needs a terminal" in finished.edgeloop("status", "--watch", code=1)


def test_watching_a_finished_run_ends_and_leaves_the_last_look(finished):
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeloop", "status", "--watch"], cwd=finished.folder, stdout=child, stderr=child,
        env={**finished.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait(timeout=60) == 0
    assert "4 trained" in shown.decode() and shown.decode().rstrip().endswith("\x1b[?25h")


def test_of_a_run_in_progress_it_shows_jobs_and_of_a_killed_one_how_to_go_on(tmp_path, source):
    run = Run(tmp_path / "run", source)
    run.folder.mkdir()
    process = subprocess.Popen(
        run.command(), env=run.environment, cwd=run.source, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    looks = []
    try:
        deadline = time.monotonic() + 300
        while not looks or not re.search(r"\nthis generation (.|\n)*running: .*(train|export|measure)", looks[-1]):
            assert process.poll() is None and time.monotonic() < deadline, looks[-3:]
            looks.append(status(run.folder, run))
            time.sleep(0.2)
        shutil.copytree(run.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.tmp"))
        of_the_copy = status(tmp_path / "copy", run)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed = status(run.folder, run)
    last = looks[-1]
    assert f"running (PID {process.pid})" in last and "generation 1 of 2" in last
    rows = {row[0]: row[1:] for row in re.findall(r"^(train|export) +(\d+) +(\d+) +(\d+) +(\d+)$", last, re.MULTILINE)}
    assert [sum(map(int, rows[stage])) for stage in ("train", "export")] == [2, 2]
    assert "time left: " in last
    assert any(re.search(r"running: .*(simulate|prepare)", look) for look in looks)
    assert "running (PID" not in of_the_copy and "broken off" not in of_the_copy
    assert f"a copy of {run.folder}, last sign of life" in of_the_copy
    assert re.search(r"broken off with \d+ jobs half done: go on with `make resume`$", killed, re.MULTILINE)
    assert "running: " not in killed
