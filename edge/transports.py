"""The registry of transports: a way to start the runner on a device and to talk with it.

A transport is a function `open_transport(device)` in a file of its own, and a line here. It gives a context manager
with one method, `start(command)`, which starts a process on the device and gives a `Process`.
"""

import importlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Protocol

from .errors import DeviceLost

if TYPE_CHECKING:
    from .device import Device

ANSWER_S = 0.5
TRANSPORTS = {"local": "edge.transport_local", "ssh": "edge.transport_ssh"}


class Process(Protocol):
    """A process on the device. Every call raises `edge.DeviceLost` or another EdgeError when the way there fails."""

    def write(self, data: bytes) -> None:
        """Send all of `data` to its stdin."""

    def read_line(self, timeout_s: float, answer: bytes = b"") -> bytes:
        """Its next line on stdout, with the line feed; empty at the end of the output. TimeoutError after `timeout_s`
        of silence. While more of it arrives, `answer` is sent back every now and then."""

    def exit_status(self) -> int | None:
        """Its exit status once it has ended; negative or None when that is not known."""

    def stderr(self) -> str:
        """The tail of what it wrote to stderr."""

    def close(self) -> None:
        """Close its stdin (the runner then ends by itself) and let go of it."""


class LineReader:
    """Lines out of the pieces that arrive: what the transports have in common."""

    buffer = b""
    answered = 0.0

    def write(self, data: bytes) -> None:
        """See `Process`."""
        raise NotImplementedError

    def receive(self, timeout_s: float) -> bytes:
        """The next piece of stdout; empty at its end. TimeoutError after `timeout_s`."""
        raise NotImplementedError

    def read_line(self, timeout_s: float, answer: bytes = b"") -> bytes:
        """See `Process`."""
        while b"\n" not in self.buffer:
            data = self.receive(timeout_s)
            if not data:
                line, self.buffer = self.buffer, b""
                return line
            self.buffer += data
            if answer and time.monotonic() - self.answered >= ANSWER_S:
                self.answered = time.monotonic()
                with suppress(DeviceLost):  # what it has said before it ended is read first
                    self.write(answer)
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"


class Transport(Protocol):
    """A way to a device, open."""

    def start(self, command: Sequence[str]) -> Process:
        """Start `command` (program and arguments) on the device."""


def open_transport(device: "Device") -> AbstractContextManager[Transport]:
    """Open the way to `device`. EdgeError says why not. A transport's module is imported only when a device asks for
    it."""
    return importlib.import_module(TRANSPORTS[device.transport]).open_transport(device)
