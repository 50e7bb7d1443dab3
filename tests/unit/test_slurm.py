"""What Slurm prints, read as it was printed by Slurm 22.05; what it does is in tests/slurm."""

import os

import pytest

from edgeloop import slurm

SHOWN = (
    "JobId=3 JobName=edgeloop_fc35 UserId=root(0) GroupId=root(0) Reason=NonZeroExitCode ReqB:S:C:T=0:0:*:* "
    "Command=(null) WorkDir=/tmp/s n Comment=rule_a  StdErr=/tmp/s n/logs/rule_a/3.log StdIn=/dev/null "
    "StdOut=/tmp/s n/logs/rule_a/3.log Power= "
)


@pytest.mark.parametrize("line", [SHOWN, SHOWN.removesuffix(" Power= ")], ids=["22.05", "without Power"])
def test_a_folder_with_a_space_is_read(line):
    assert slurm._shown(line, "JobName") == "edgeloop_fc35"
    assert slurm._shown(line, "StdOut") == "/tmp/s n/logs/rule_a/3.log"


def test_what_is_not_shown_is_an_error():
    with pytest.raises(slurm.SlurmError, match="shows no Features"):
        slurm._shown(SHOWN, "Features")


def test_a_job_whose_step_ran_out_of_memory_ran_out_of_memory():
    steps = [["FAILED", "700M", "00:05:00"], ["FAILED", "", ""], ["OUT_OF_MEMORY", "", ""]]
    assert slurm._as_one(6, steps) == slurm.Job(6, "OUT_OF_MEMORY", "700M, 00:05:00")
    assert slurm._as_one(7, [["CANCELLED by 0", "1G", "00:01:00"]]).state == "CANCELLED"


def test_without_slurm_there_are_no_earlier_attempts(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.earlier_attempts() == []


def test_a_missing_program_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmError, match="no command squeue: is Slurm installed here"):
        slurm.queue("edgeloop_1")


def test_wrappers_are_found_first_and_only_for_what_is_there(monkeypatch, tmp_path):
    for name in ("sbatch", "sacct"):
        (tmp_path / "wrappers" / name).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/sbatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    slurm.prefer(tmp_path / "wrappers")
    assert os.environ["PATH"] == f"{tmp_path}/wrappers/sbatch:{tmp_path}/bin"
