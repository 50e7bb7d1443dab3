"""The configuration of a device: what is wrong in it is named before anything connects."""

import re
import sys

import pytest

import edge
from edge.device import parse_gateway


def test_a_device_needs_nothing_to_be_this_machine():
    device = edge.Device.from_config("here", {})
    assert (device.transport, device.python, device.threads) == ("local", sys.executable, 1)


def test_an_ssh_device_uses_the_python_of_its_own():
    device = edge.Device.from_config("jetson", {"transport": "ssh", "host": "10.0.0.7", "user": "nv", "cpus": [2, 3]})
    assert (device.python, device.cpus, device.address) == ("python3", (2, 3), "nv@10.0.0.7")


def test_an_empty_value_means_the_default():
    assert edge.Device.from_config("here", {"threads": None, "cpus": None}).threads == 1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"hots": "x"}, "unknown key 'hots'; expected one of"),
        ({"password": "x"}, "use a key"),
        ({"transport": "carrier-pigeon"}, "transport is 'carrier-pigeon'; expected one of ['local', 'ssh']"),
        ({"transport": "ssh"}, "host is None; expected the name or address"),
        ({"host": "x"}, "did you mean `transport: ssh`?"),
        ({"budget_ms": -1}, "budget_ms is -1; expected a latency above 0"),
        ({"budget_ms": True}, "budget_ms is True"),
        ({"budget_memory_mb": 0}, "budget_memory_mb is 0; expected a size above 0 in MB"),
        ({"budget_energy_mj": 0}, "budget_energy_mj is 0; expected an energy above 0 in mJ"),
        ({"batch_sizes": [8, 8]}, "batch_sizes is (8, 8); expected a list of different whole numbers above 0"),
        ({"batch_sizes": 8}, "batch_sizes is 8"),
        ({"deadline_s": 0}, "deadline_s is 0"),
        ({"lock_timeout_s": "soon"}, "lock_timeout_s is 'soon'"),
        ({"lock_file": "relative"}, "an absolute path"),
        ({"threads": 0}, "threads is 0; expected a whole number above 0"),
        ({"cpus": []}, "a list of core numbers"),
        ({"cpus": "0,1"}, "a list of core numbers"),
        ({"providers": ["cuda"]}, "a list of onnxruntime providers"),
        ({"port": 70000}, "a port from 1 to 65535"),
        ({"gateways": ["user@host:port"]}, "a list of user@host:port, the first hop first"),
        ({"gateways": "user@host"}, "a list of user@host:port, the first hop first"),
        ({"identity_file": 3}, "identity_file is 3"),
        ({"reconnect_s": -1}, "reconnect_s is -1; expected a time in seconds, 0 or more"),
        ({"work_folder": ""}, "work_folder is ''"),
        (["a", "list"], "expected a mapping"),
    ],
)
def test_a_wrong_entry_is_refused_by_device_key_and_expectation(entry, words):
    with pytest.raises(ValueError, match=f"device 'thing': .*{re.escape(words)}"):
        edge.Device.from_config("thing", entry)


def test_a_gateway_may_leave_out_user_and_port():
    assert parse_gateway("jump@hop:2222") == ("jump", "hop", 2222)
    assert parse_gateway("hop") == (None, "hop", None)


@pytest.mark.parametrize(
    "entry", [{"gateways": ["jump:secret@hop"]}, {"user": "nv:secret"}, {"host": "nv:secret@h"}, {"password": "secret"}]
)
def test_a_password_is_refused_and_not_repeated(entry):
    with pytest.raises(ValueError, match="use a key") as caught:
        edge.Device.from_config("thing", {"transport": "ssh", "host": "h"} | entry)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"min_runs": 0}, {"min_runs": 2.5}, {"max_s": "5"}, {"batch_size": 0}, {"min_s": -1}]
)
def test_a_wrong_timing_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"timing: .*{next(iter(wrong))}"):
        edge.Timing(**wrong)
