"""Packs: who is in which, that members are safe from each other, and that nothing finished is lost."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from edgeloop import packing
from edgeloop.data.cache import Split
from edgeloop.records import candidate_id, failed, ok

MEMBERS = ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"]


@pytest.fixture
def stash(tmp_path):
    return packing.Stash(tmp_path / "stash", dict.fromkeys(MEMBERS, "today"))


def result(member, folder):
    (folder / f"{member}.pt").write_text(member)
    return ok(candidate=member)


def finished(stash):
    return [member for member in MEMBERS if stash.has(member)]


# ---------------------------------------------------------------- safe from each other


def test_a_member_that_fails_raises_or_is_killed_touches_no_other(stash, tmp_path):
    def work(member, folder):
        if member == MEMBERS[0]:
            return failed("diverged")
        if member == MEMBERS[1]:
            raise OSError("no such luck")
        if member == MEMBERS[2]:
            os.write(1, b"my last words\n")  # as from C
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)  # still at work when the others end
        return result(member, folder)

    missing = packing.run(stash, work, processes=4, logs=tmp_path / "logs")
    assert finished(stash) == [MEMBERS[0], MEMBERS[3]]
    assert stash.record(MEMBERS[0])["reason"] == "diverged"
    assert set(missing) == {MEMBERS[1], MEMBERS[2]}
    assert missing[MEMBERS[1]].endswith("OSError: no such luck") and "in work" in missing[MEMBERS[1]]
    assert "SIGKILL" in missing[MEMBERS[2]] and "memory" in missing[MEMBERS[2]]
    assert (tmp_path / f"logs/{MEMBERS[2]}.log").read_text() == "my last words\n"
    told = packing.incomplete("0123", "trained", missing, 4)
    assert told.startswith("2 of the 4") and all(name in told for name in (MEMBERS[1], MEMBERS[2], "no such luck"))


def test_a_shared_process_that_dies_is_followed_by_one_for_the_members_behind(stash):
    def work(member, folder):
        if member == MEMBERS[1]:
            os.kill(os.getpid(), signal.SIGTERM)
        return {**result(member, folder), "pid": os.getpid()}

    missing = packing.run(stash, work, processes=1, workers=1)
    assert list(missing) == [MEMBERS[1]] and "SIGTERM" in missing[MEMBERS[1]]
    first, third, last = (stash.record(member)["pid"] for member in finished(stash))
    assert first != third == last


def test_who_had_too_little_memory_beside_others_is_done_again_alone(stash, tmp_path):
    attempts = tmp_path / "attempts"

    def work(member, folder):
        with attempts.open("a") as file:
            file.write(f"{member}\n")
        if member in MEMBERS[:2] and (member == MEMBERS[0] or attempts.read_text().split().count(member) == 1):
            return failed("ran out of memory")
        return result(member, folder)

    told = {}
    cramped = {"cramped": lambda record: "memory" in record.get("reason", "")}
    assert packing.run(stash, work, processes=2, finished=told.__setitem__, **cramped) == {}
    tried = Counter(attempts.read_text().split())
    assert tried == {MEMBERS[0]: 2, MEMBERS[1]: 2, MEMBERS[2]: 1, MEMBERS[3]: 1}
    assert {member: record["status"] for member, record in told.items()} == {
        member: "failed" if member == MEMBERS[0] else "ok" for member in MEMBERS
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_no_more_are_at_work_at_once_than_allowed(tmp_path, processes):
    members = [f"{number:012x}" for number in range(6)]
    stash = packing.Stash(tmp_path / "stash", dict.fromkeys(members, ""))

    def work(member, folder):
        begin = time.monotonic()
        time.sleep(0.1)
        return {"span": [begin, time.monotonic()]}

    assert packing.run(stash, work, processes=processes) == {}
    spans = [stash.record(member)["span"] for member in members]
    together = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)
    assert together == processes


def test_a_question_is_answered_elsewhere():
    assert packing.ask(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        packing.ask(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="SIGKILL"):
        packing.ask(lambda: os.kill(os.getpid(), signal.SIGKILL))


# ---------------------------------------------------------------- nothing finished is lost


def test_after_a_kill_only_what_was_not_finished_is_done_and_no_member_goes_on_by_itself(stash, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()

    def slow(member, folder):
        (pids / str(os.getpid())).touch()
        if member in MEMBERS[2:]:
            (folder / "half").touch()
            time.sleep(60)
        return result(member, folder)

    job = multiprocessing.get_context("fork").Process(target=packing.run, args=(stash, slow), kwargs={"processes": 4})
    job.start()
    deadline = time.monotonic() + 20
    while (len(finished(stash)), len(list(pids.iterdir()))) != (2, 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.kill()
    job.join()
    while any(alive(int(file.name)) for file in pids.iterdir()):
        assert time.monotonic() < deadline, "members outlive their job"
        time.sleep(0.02)
    told = []
    assert packing.run(stash, result, processes=1, finished=lambda member, record: told.append(member)) == {}
    assert told == MEMBERS[2:]
    stash.hand_over(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        f"{member}.{suffix}" for member in MEMBERS for suffix in ("json", "pt")
    )
    assert not stash.folder.exists()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_made_from_something_else_counts_for_nothing(stash):
    packing.run(stash, result, processes=2)
    made_of = dict.fromkeys(MEMBERS, "today") | {MEMBERS[1]: "another training"}
    later, told = packing.Stash(stash.folder, made_of), []
    packing.run(later, result, processes=2, finished=lambda member, record: told.append(member))
    assert told == [MEMBERS[1]]


def test_what_is_given_up_is_a_failed_record_with_empty_files_and_the_finished_stays(stash, tmp_path):
    packing.run(packing.Stash(stash.folder, {MEMBERS[0]: "today", MEMBERS[1]: "yesterday"}), result, processes=1)
    stash.give_up(lambda member: failed("died", candidate=member), ".pt")
    stash.hand_over(tmp_path / "out")
    records = {member: json.loads((tmp_path / f"out/{member}.json").read_text()) for member in MEMBERS}
    assert [record["status"] for record in records.values()] == ["ok", "failed", "failed", "failed"]
    assert [(tmp_path / f"out/{member}.pt").stat().st_size > 0 for member in MEMBERS] == [True, False, False, False]


# ---------------------------------------------------------------- trainings


def genotype(lr, width=4):
    architecture = {"family": "conv2d", "widths": [width], "frames": 4, "pixels": 25}
    return {"architecture": architecture, "precision": "fp32", "training": {"lr": lr, "optimizer": "adam", "ema": 0.1}}


def train_packed(folder):
    """Three real trainings, of which one diverges, side by side; in a process that has never computed."""
    from edgeloop import training

    rng = np.random.default_rng(3)
    train, validation = (
        Split(rng.integers(0, 255, (n, 16, 41, 41), np.uint8), rng.random((n, 2), np.float32)) for n in (64, 16)
    )
    genotypes = {candidate_id(entry): entry for entry in (genotype(0.01), genotype(0.02, 8), genotype(1e37))}
    settings = training.Settings(epochs=2, device="cpu")

    def work(member, place):
        return training.train(genotypes[member], train, validation, settings, weights_path=place / f"{member}.pt")

    assert packing.run(packing.Stash(folder / "packed", dict.fromkeys(genotypes, "")), work, processes=3) == {}
    for member in genotypes:
        (folder / "alone" / member).mkdir(parents=True)
        record = work(member, folder / "alone" / member)
        packing.write_json(folder / "alone" / member / f"{member}.json", record)


def test_a_training_in_a_pack_gives_the_bytes_that_it_gives_alone(tmp_path):
    # In a fresh interpreter: other tests have computed in this one.
    command = f"import sys; sys.path[:] = {sys.path!r}; import pathlib, test_packing; "
    command += f"test_packing.train_packed(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", command], check=True)
    statuses = Counter()
    for folder in (tmp_path / "alone").iterdir():
        name = folder.name
        packed = tmp_path / "packed" / name
        records = [json.loads((place / f"{name}.json").read_text()) for place in (folder, packed)]
        assert records[0].get("history") == records[1].get("history")
        statuses[records[1]["status"]] += 1
        if records[0]["status"] == "ok":
            assert (packed / f"{name}.pt").read_bytes() == (folder / f"{name}.pt").read_bytes()
    assert statuses == {"ok": 2, "failed": 1}
