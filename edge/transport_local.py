"""The transport to this very machine: the runner as a child process, talked to through pipes."""

import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .device import Device
from .errors import DeviceLost, RuntimeMissing
from .transports import LineReader

STDERR_TAIL = 8192
GRACE_S = 10.0


class LocalProcess(LineReader):
    """See `edge.transports.Process`."""

    def __init__(self, device: Device, command: Sequence[str]) -> None:
        self.device = device
        command = [os.path.expanduser(command[0]), *command[1:]]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        try:
            # An own session: Ctrl-C goes to the client alone, which then closes stdin.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self.errors.close()
            message = f"device {device.name!r}: {command[0]!r} cannot be started ({error}). Set its key `python`."
            raise RuntimeMissing(message) from error

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self.process.stdin.write(view) :]
        except BrokenPipeError as error:
            raise DeviceLost(f"device {self.device.name!r}: the runner ended while it was sent data") from error

    def receive(self, timeout_s: float) -> bytes:
        output = self.process.stdout.fileno()
        if not select.select([output], [], [], timeout_s)[0]:
            raise TimeoutError
        return os.read(output, 1 << 16)

    def exit_status(self) -> int | None:
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return None

    def stderr(self) -> str:
        end = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, end - STDERR_TAIL))
        return self.errors.read().decode(errors="replace")

    def close(self) -> None:
        self.process.stdin.close()
        if self.exit_status() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class LocalTransport:
    """See `edge.transports.Transport`."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def start(self, command: Sequence[str]) -> LocalProcess:
        return LocalProcess(self.device, command)


@contextmanager
def open_transport(device: Device) -> Iterator[LocalTransport]:
    """This machine is always there."""
    yield LocalTransport(device)
