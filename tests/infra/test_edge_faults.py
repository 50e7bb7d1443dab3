"""What goes wrong on the way to a device, against a real sshd behind a link of 15 ms and 50 Mbit/s: each candidate is
measured exactly once in the end, or the error names the device, the cause and the next step; nothing stays behind.

Time-outs are shortened, but where a test is about those of the configuration's defaults.
"""

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sample_models import big_model, make_model, refused_model
from servers import Site, make_key

import edge

pytestmark = pytest.mark.infra
QUICK = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1)
SLOW = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=4.0, max_s=4.0, warmup_max_s=0.1)
ENDLESS = edge.Timing(quiet_wait_s=0, min_s=100.0, max_s=100.0)
RICH = edge.Timing(quiet_wait_s=0, min_runs=10_000, min_s=0.1, max_s=10.0, warmup_max_s=0.1)
"""Its samples are more than 100 kB."""
SHORT = {"connect_timeout_s": 2.0, "silence_timeout_s": 2.0, "reconnect_s": 20.0}
NEVER_AGAIN = {"connect_timeout_s": 2.0, "silence_timeout_s": 2.0, "reconnect_s": 3.0}


def refused(device: edge.Device, error: type[edge.EdgeError], words: str) -> None:
    """Connecting is refused with an error that names the device and says `words`, at once."""
    with pytest.raises(error, match=words) as caught, edge.connect(device):
        pass
    assert repr(device.name) in str(caught.value)


def once(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    """Do `action` as soon as `condition` holds; give up after 60 s."""

    def work() -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def runner(site: Site) -> int | None:
    """The runner's pid while it times a model there; its watchdog and the model's process are its children."""
    at_work = site.at_work()
    for pid in at_work:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists() and len(children.read_text().split()) == 2:
            return pid
    return None


def model_process(site: Site) -> int:
    """The process that times the model: the younger child of the runner."""
    pid = runner(site)
    return max(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def assert_nothing_is_left(site: Site, within_s: float) -> None:
    """No process, no lock that is held and no partial file."""
    deadline = time.monotonic() + within_s
    while site.at_work() or is_held(site.folder / "lock"):
        assert time.monotonic() < deadline, f"still at work, or holding the lock: {site.at_work()}"
        time.sleep(0.05)
    for entry in (site.folder / "work").iterdir():
        assert entry.name == ".lock" or hashlib.sha256(entry.read_bytes()).hexdigest() == entry.name


def is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def measured(device: edge.Device, enrolment: dict, *models: Path, timing=QUICK) -> tuple[list[dict], int]:
    """The records, and how many times the way was opened anew."""
    with edge.connect(device) as session:
        records = session.measure([edge.Job(model) for model in models], timing, enrolment=enrolment)
    return records, session.reconnections


# ---------------------------------------------------------------- no way in


def test_a_refused_connection_names_host_and_port(site):
    site.sshd.stop()
    refused(site.device(), edge.DeviceUnreachable, rf"{site.link.there}:22.*refused.*Check `host`, `port`")


def test_a_patient_caller_waits_for_a_device_that_is_off(site):
    site.sshd.stop()
    starter = threading.Timer(1.5, site.sshd.start)
    starter.start()
    with edge.connect(site.device(reconnect_s=20), patient=True):
        starter.join()


def test_a_patient_caller_does_not_wait_for_ever(site):
    site.sshd.stop()
    with (
        pytest.raises(edge.DeviceUnreachable, match=r"'far'.*refused.*tried again for \d s \(`reconnect_s`\)"),
        edge.connect(site.device(reconnect_s=2), patient=True),
    ):
        pass


def test_a_wrong_host_key_is_told_from_the_known_one(site, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"{site.link.there} {make_key(tmp_path / 'imposter')}\n")
    refused(site.device(known_hosts=str(known)), edge.HostKeyRejected, rf"not the known.*mend {re.escape(str(known))}")


def test_a_wrong_key_is_an_authentication_error(site):
    device = site.device(identity_file=str(site.sshd.other_key))
    refused(device, edge.AuthenticationFailed, "does not accept the key.*authorized_keys")


def test_a_server_that_never_greets_is_given_up(site):
    site.sshd.process.send_signal(signal.SIGSTOP)  # the kernel takes the connection, nobody speaks
    refused(site.device(connect_timeout_s=1), edge.DeviceUnreachable, "no SSH connection")


def test_a_link_that_is_down_is_given_up(site):
    site.link.set(cut=True)
    refused(site.device(connect_timeout_s=1), edge.DeviceUnreachable, "no answer within 1 s")


# ---------------------------------------------------------------- the link is cut

PHASES = ("upload", "measuring", "return")


@contextmanager
def cut_in(site: Site, phase: str, seconds: float | None) -> Iterator[None]:
    """Cut the link in this phase of a session, for so many seconds or for good."""
    before, thread = site.link.state(), None
    if phase == "upload":
        site.link.set(cut_up_after=300_000, cut_s=seconds)
    else:
        after = 1 if phase == "measuring" else 50_000
        thread = once(lambda: runner(site), lambda: site.link.set(cut_down_after=after, cut_s=seconds))
    yield
    if thread:
        thread.join()
    assert site.link.state()["up_bytes"] > before["up_bytes"]


def phase_timing(phase: str) -> edge.Timing:
    return {"upload": QUICK, "measuring": SLOW, "return": RICH}[phase]


@pytest.mark.parametrize("phase", PHASES)
def test_a_link_that_is_down_for_three_seconds_costs_nothing_but_time(site, enrolment, tmp_path, phase):
    model = big_model(tmp_path / "big.onnx", 1)
    with cut_in(site, phase, 3.0):
        (record,), _ = measured(site.device(), enrolment, model, timing=phase_timing(phase))
    assert record["status"] == "ok"
    assert_nothing_is_left(site, within_s=2)


@pytest.mark.parametrize("phase", PHASES)
def test_a_link_that_is_down_for_long_is_opened_anew_and_the_model_measured_once(site, enrolment, tmp_path, phase):
    model = big_model(tmp_path / "big.onnx", 1)
    with cut_in(site, phase, 6.0):
        (record,), reconnections = measured(site.device(**SHORT), enrolment, model, timing=phase_timing(phase))
    assert record["status"] == "ok"
    assert reconnections == 1
    assert_nothing_is_left(site, within_s=5)


@pytest.mark.parametrize("phase", PHASES)
def test_a_link_that_is_down_for_good_is_an_error_and_nothing_stays(site, enrolment, tmp_path, phase):
    model = big_model(tmp_path / "big.onnx", 1)
    noticed = "(no word for 2 s|connection was lost|session ended)"
    words = rf"device 'far'.*{noticed}.*could not be reached again, and 0 of 1 models were"
    with cut_in(site, phase, None), pytest.raises(edge.EdgeError, match=words) as caught:
        measured(site.device(**NEVER_AGAIN), enrolment, model, timing=ENDLESS if phase == "measuring" else RICH)
    assert isinstance(caught.value, edge.DeviceUnreachable)
    assert_nothing_is_left(site, within_s=5)  # while the link is still down
    site.link.set(cut=False, cut_up_after=None, cut_down_after=None)
    (record,), _ = measured(site.device(), enrolment, model)
    assert record["status"] == "ok"


@pytest.mark.parametrize("phase", ["upload", "measuring"])
def test_a_dead_link_is_noticed_within_thirty_seconds_on_either_side(site, enrolment, tmp_path, phase):
    big = big_model(tmp_path / "big.onnx", 1)
    if phase == "upload":
        site.link.set(cut_up_after=300_000)
    else:
        once(lambda: runner(site), lambda: site.link.set(cut=True))
    cut_at: list[float] = []
    watcher = once(lambda: site.link.state()["cut"], lambda: cut_at.append(time.monotonic()))
    defaults = edge.Device("defaults")
    device = site.device(reconnect_s=0, connect_timeout_s=defaults.connect_timeout_s)
    assert device.silence_timeout_s == defaults.silence_timeout_s
    with pytest.raises(edge.EdgeError, match="'far'"):
        measured(device, enrolment, big, timing=ENDLESS)
    watcher.join()
    assert time.monotonic() - cut_at[0] < 30
    assert_nothing_is_left(site, within_s=30 - (time.monotonic() - cut_at[0]))


def test_what_was_measured_before_the_link_was_lost_is_kept(site, enrolment, tmp_path, caplog):
    models = [make_model(tmp_path / f"{n}.onnx", f"model {n}") for n in range(6)]
    timing = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=1.0, max_s=1.0, warmup_max_s=0.1)
    cut_at = []
    cutter = once(lambda: runner(site), lambda: (time.sleep(3.5), cut_at.append(time.time()), site.link.set(cut=True)))
    mender = once(lambda: site.link.state()["cut"], lambda: (time.sleep(5), site.link.set(cut=False)))
    records, reconnections = measured(site.device(**SHORT), enrolment, *models, timing=timing)
    cutter.join(), mender.join()
    assert [record["model"] for record in records] == [model.name for model in models]
    assert all(record["status"] == "ok" for record in records)
    assert reconnections == 1
    kept = int(re.search(r"(\d) of 6 models were measured. Connecting again", caplog.text)[1])
    assert kept >= 1
    # Each was timed once: those that were kept before the cut, the others after it. (On a machine that is busy with
    # other things, what is doubtful is measured again.)
    begins = [record["telemetry"]["before"]["time_s"] for record in records]
    once_only = [number for number, record in enumerate(records) if record["repeat"] is None]
    assert [begins[number] < cut_at[0] for number in once_only] == [number < kept for number in once_only]


def test_packets_that_are_lost_are_no_fault(site, enrolment, tmp_path):
    site.link.set(loss=0.03)
    (record,), reconnections = measured(site.device(), enrolment, big_model(tmp_path / "big.onnx", 0.5))
    assert record["status"] == "ok" and reconnections == 0


def test_a_result_that_takes_longer_than_a_silence_may_last_is_no_silence(site, enrolment, model):
    site.link.set(rate_mbit=0.3)
    before = site.link.state()["down_bytes"]
    records, reconnections = measured(site.device(silence_timeout_s=2), enrolment, model, model, timing=RICH)
    assert all(record["status"] == "ok" for record in records) and reconnections == 0
    assert (site.link.state()["down_bytes"] - before) / 2 > 2 * 0.3e6 / 8  # each of the two took longer than 2 s


# ---------------------------------------------------------------- the device, the runner, the model


def test_a_device_that_reboots_is_waited_for_and_its_old_lock_file_does_not_matter(site, enrolment, model):
    def reboot() -> None:
        site.power_off()
        assert (site.folder / "lock").read_text().startswith("pid ")
        time.sleep(3)
        site.power_on()

    reboots = once(lambda: runner(site), reboot)
    (record,), reconnections = measured(site.device(**SHORT), enrolment, model, timing=SLOW)
    reboots.join()
    assert record["status"] == "ok" and reconnections == 1
    assert_nothing_is_left(site, within_s=2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_runner_that_is_killed_crashes_or_hangs_is_started_again(site, enrolment, model, number):
    thread = once(lambda: runner(site), lambda: os.kill(runner(site), number))
    device = site.device(silence_timeout_s=4, lock_timeout_s=10)
    (record,), reconnections = measured(device, enrolment, model, timing=SLOW)
    thread.join()
    assert record["status"] == "ok" and reconnections == 1
    assert_nothing_is_left(site, within_s=2)


def test_a_runner_that_dies_each_time_is_not_started_for_ever(site, enrolment, model):
    over = threading.Event()

    def kill_all() -> None:
        while not over.is_set():
            if pid := runner(site):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(edge.DeviceLost, match=r"'far'.*4 sessions were lost in a row.*leave it out"):
            measured(site.device(**SHORT), enrolment, model, timing=SLOW)
    finally:
        over.set()
        killer.join()
    assert_nothing_is_left(site, within_s=2)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGSTOP, "not done after 3 s")])
def test_a_model_that_crashes_or_hangs_has_failed_and_the_others_are_measured(site, enrolment, tmp_path, number, words):
    models = [make_model(tmp_path / f"{n}.onnx", f"model {n}") for n in range(2)]
    timing = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=1.5, max_s=1.5, warmup_max_s=0.1)
    thread = once(lambda: runner(site), lambda: os.kill(model_process(site), number))
    (failed, good), reconnections = measured(site.device(deadline_s=3), enrolment, *models, timing=timing)
    thread.join()
    assert failed["status"] == "failed" and words in failed["reason"]
    assert good["status"] == "ok" and reconnections == 0


def test_a_model_that_the_runtime_refuses_has_failed_and_the_others_are_measured(site, enrolment, tmp_path, model):
    (failed, good), _ = measured(site.device(), enrolment, refused_model(tmp_path / "refused.onnx"), model)
    assert failed["status"] == "failed" and "Teleport" in failed["reason"]
    assert good["status"] == "ok"


@pytest.fixture
def small_disk(site) -> Iterator[Path]:
    """The device's work folder, on a file system of 400 kB."""
    work = site.folder / "work"
    work.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", work], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small file system: {done.stderr.strip()}")
    try:
        yield work
    finally:
        subprocess.run(["umount", "--lazy", work], check=True)


def test_a_full_disk_is_an_error_and_no_part_of_a_file_stays(site, enrolment, tmp_path, small_disk):
    big = big_model(tmp_path / "big.onnx", 1)
    words = rf"'far'.*{re.escape(str(small_disk))} failed.*No space left.*Make room"
    with pytest.raises(edge.StorageFailed, match=words):
        measured(site.device(), enrolment, big)
    assert_nothing_is_left(site, within_s=2)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert measured(site.device(), enrolment, big)[0][0]["status"] == "ok"


def test_a_disk_without_room_for_the_runner_is_an_error(site, enrolment, model, small_disk):
    (small_disk / ("f" * 64)).write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,size=16k", small_disk], check=True)
    with pytest.raises(edge.StorageFailed, match=r"'far'.*No space left.*Make room"):
        measured(site.device(), enrolment, model)
    assert not list(small_disk.glob("*.tmp"))


def test_a_bit_that_flips_on_the_way_is_noticed_and_the_model_measured_once(site, enrolment, tmp_path):
    site.link.set(flip_up_after=400_000)
    (record,), reconnections = measured(site.device(**SHORT), enrolment, big_model(tmp_path / "big.onnx", 1))
    assert record["status"] == "ok" and reconnections == 1
    assert "Corrupted MAC" in site.sshd.log() or "message authentication code incorrect" in site.sshd.log()
    assert_nothing_is_left(site, within_s=2)


def test_a_file_that_is_damaged_on_the_device_is_sent_again(site, enrolment, model):
    measured(site.device(), enrolment, model)
    kept = site.folder / "work" / hashlib.sha256(model.read_bytes()).hexdigest()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    (record,), _ = measured(site.device(), enrolment, model)
    assert record["status"] == "ok"
    assert_nothing_is_left(site, within_s=2)


def test_a_file_that_changes_while_it_is_sent_is_an_error(site, enrolment, tmp_path):
    big = big_model(tmp_path / "big.onnx", 2)
    before = site.link.state()["up_bytes"]

    def overwrite() -> None:
        with open(big, "r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(b"x" * 1000)

    thread = once(lambda: site.link.state()["up_bytes"] > before + 200_000, overwrite)
    with pytest.raises(edge.RunnerFailed, match=r"'far'.*arrived damaged.*Run it again"):
        measured(site.device(), enrolment, big)
    thread.join()
    assert_nothing_is_left(site, within_s=2)


# ---------------------------------------------------------------- others


def test_a_client_that_was_asleep_measures_what_is_left(site, enrolment, tmp_path, model):
    entry = site.sshd.entry(site.folder, **SHORT)
    (tmp_path / "devices.yaml").write_text(json.dumps({"devices": {"far": entry}}))
    (tmp_path / "enrolment.json").write_text(json.dumps(enrolment))
    words = ["--device", "far", "--config", "devices.yaml", "--enrolment", "enrolment.json", "--max-s", "4"]
    command = [sys.executable, "-m", "edge", "measure", *words, "--runs", "10000000", str(model)]
    client = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sleeper = once(lambda: runner(site), lambda: client.send_signal(signal.SIGSTOP))
    sleeper.join()
    assert_nothing_is_left(site, within_s=5)
    client.send_signal(signal.SIGCONT)
    out, said = client.communicate(timeout=60)
    assert client.returncode == 0, said
    assert "Connecting again" in said and model.name in out


def test_a_lock_that_somebody_else_holds_is_an_error_that_says_who(site, enrolment, model):
    script = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('pid 7 of another project', file=lock, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(site.link.inside([sys.executable, "-c", script, site.folder / "lock"]))
    while not (site.folder / "lock").exists() or not (site.folder / "lock").read_text():
        time.sleep(0.02)
    with pytest.raises(edge.DeviceBusy, match=r"'far'.*held by pid 7 of another project.*lock_timeout_s"):
        measured(site.device(lock_timeout_s=0.5), enrolment, model)
    # The holder, the runner that waits and its watchdog.
    once(lambda: len(site.at_work()) >= 3, lambda: (time.sleep(5), other.kill()))
    (record,), reconnections = measured(site.device(silence_timeout_s=2, lock_timeout_s=30), enrolment, model)
    # It has waited longer than a silence may last: waiting is no silence.
    assert record["status"] == "ok" and reconnections == 0
    other.wait(5)
    assert_nothing_is_left(site, within_s=2)


def test_two_searches_on_one_device_take_turns(site, enrolment, tmp_path):
    models = [[make_model(tmp_path / f"{s}{n}.onnx", f"{s}{n}") for n in range(2)] for s in "ab"]
    timing = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=1.0, max_s=1.0, warmup_max_s=0.1)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(measured, site.device(), enrolment, *pair, timing=timing) for pair in models]
        records = [future.result()[0] for future in both]
    assert all(record["status"] == "ok" for pair in records for record in pair)
    spans = sorted(
        (pair[0]["telemetry"]["before"]["time_s"], pair[-1]["telemetry"]["after"]["time_s"]) for pair in records
    )
    assert spans[0][1] <= spans[1][0]
    assert_nothing_is_left(site, within_s=2)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_changes_no_figure_and_no_deadline(site, enrolment, tmp_path, days):
    libraries = [path for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not libraries:
        pytest.skip("libfaketime is not installed (Debian: apt-get install faketime)")
    clock, python = tmp_path / "clock", tmp_path / "python"
    clock.write_text("+0")
    python.write_text(
        f"#!/bin/sh\nexport LD_PRELOAD={libraries[0]} FAKETIME_TIMESTAMP_FILE={clock} FAKETIME_NO_CACHE=1 "
        f'FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    models = [make_model(tmp_path / f"{n}.onnx", f"model {n}") for n in range(2)]
    timing = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=1.5, max_s=1.5, warmup_max_s=0.1)
    jump = once(lambda: runner(site), lambda: (time.sleep(0.5), clock.write_text(f"{days:+}d")))
    first, second = measured(site.device(python=str(python)), enrolment, *models, timing=timing)[0]
    jump.join()
    # The device's clock did jump. The first model's time may already be one after it: a disturbed run is done again.
    ahead_s = second["telemetry"]["after"]["time_s"] - time.time()
    assert ahead_s / 86400 == pytest.approx(days, abs=1)
    for record in (first, second):
        assert record["status"] == "ok"
        assert 1.5 < record["device_s"] < 20
        assert record["latency_p50_ms"] == pytest.approx(record["reference_p50_ms"], rel=0.5)  # it is the reference
    assert_nothing_is_left(site, within_s=2)
