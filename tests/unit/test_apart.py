"""A call in another process is as good as one here, but for its imports."""

import math
import subprocess
import sys

import pytest

from edgeloop import apart, config
from edgeloop.fingerprint import code


def test_what_the_function_returns_comes_back_and_what_it_imports_does_not(monkeypatch):
    assert apart.call(math.hypot, 3, 4) == 5
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    apart.call(exec, "import wave")
    assert "wave" not in sys.modules


def test_what_the_function_prints_does_not_disturb_the_answer(capfd):
    assert apart.call(print, "hello") is None
    assert capfd.readouterr().err == "hello\n"


def test_an_exception_comes_back_with_type_message_and_the_place_where_it_was_raised():
    with pytest.raises(ValueError, match=r"there is no module 'edgeloop\.nowhere' to fingerprint") as raised:
        apart.call(code, "edgeloop.nowhere")
    assert "fingerprint.py" in raised.value.__notes__[0]
    with pytest.raises(config.ConfigError, match=r"unknown key 'sedd' in 'search'; did you mean 'seed'\?"):
        apart.call(config.complete, {"search": {"sedd": 1}}, SCHEMA)


def test_a_process_that_dies_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        apart.call(sys.exit, 3)


SCHEMA = {
    "type": "object",
    "properties": {"search": {"type": "object", "properties": {"seed": {}}, "additionalProperties": False}},
}
