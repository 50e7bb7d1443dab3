"""The conversation with the runner, on this machine: what it does when nobody listens."""

import fcntl
import time
from dataclasses import asdict

import pytest

import edge
from edge import wire
from edge.reference import reference_model, reference_sha256
from edge.transports import open_transport


def is_free(lock) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


@pytest.mark.parametrize(
    "timing",
    [
        edge.Timing(min_s=100, max_s=100),  # it waits in vain for an answer
        edge.Timing(min_runs=20_000, min_s=0.1, max_s=20),  # its result is larger than the pipe, and nobody takes it
    ],
)
def test_a_runner_to_which_nobody_listens_frees_the_device_and_ends(tmp_path, timing):
    entry = {"work_folder": str(tmp_path / "work"), "lock_file": str(tmp_path / "lock"), "silence_timeout_s": 2.0}
    device = edge.Device.from_config("here", entry)
    job = {"model": None, "clips": None, "shapes": None, "timing": asdict(timing), "reference": reference_sha256()}
    request = wire.request_for(device, [job] * 3)
    with open_transport(device) as transport:
        events = wire.converse(transport, device, request, {reference_sha256(): reference_model()}, wire.Traffic())
        assert next(events)["event"] == "locked"
        with open(tmp_path / "lock") as lock:
            assert not is_free(lock)
            deadline = time.monotonic() + 20
            while not is_free(lock):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with pytest.raises(edge.DeviceLost, match="heard nothing from here"):
            list(events)
