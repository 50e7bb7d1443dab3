"""The transport over SSH: Fabric's connections, hop by hop through the gateways, host keys checked at every hop.

Fabric accepts unknown hosts by default and ignores what ssh_config says about that. Here every hop rejects what its
files of known hosts do not list. `edge.ssh_config` says what the hops are; Fabric reads no file of its own.
"""

import logging
import shlex
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import fabric
import paramiko
from paramiko.config import SSHConfig

from .device import Device
from .errors import AuthenticationFailed, DeviceLost, DeviceUnreachable, EdgeError, HostKeyRejected
from .ssh_config import Hop, way_to
from .transports import LineReader

STDERR_TAIL = 8192
GRACE_S = 10.0
POLL_S = 0.5
CUT_OFF = ("timeout", "transport shut down")

# Without a handler, Python prints paramiko's tracebacks to stderr; the EdgeError says it better.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class UnknownHost(paramiko.SSHException):
    """A host that known_hosts does not list."""


class _Reject(paramiko.RejectPolicy):
    """Reject unknown hosts with an exception of their own: paramiko's is the same class as for a broken protocol."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> NoReturn:
        raise UnknownHost(f"{hostname} offered {key.get_name()} {key.fingerprint}")


class SshProcess(LineReader):
    """See `edge.transports.Process`."""

    def __init__(self, device: Device, connection: fabric.Connection, command: Sequence[str]) -> None:
        self.device = device
        self.errors = b""
        # Not Connection.run: it decodes the output, and reads stdin by the character.
        with self._guard():
            self.channel = connection.create_session()
            self.channel.settimeout(device.silence_timeout_s)
            self.channel.exec_command("exec " + _quoted(command))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason = str(error) or type(error).__name__
            message = f"the connection was lost ({reason}). Check the link and the device."
            raise DeviceLost(f"device {self.device.name!r} ({self.device.address}): {message}") from error

    def write(self, data: bytes) -> None:
        with self._guard():
            self.channel.settimeout(self.device.silence_timeout_s)
            self.channel.sendall(data)

    def receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            self._drain_stderr()  # shares the window with stdout: unread, it would stop both
            self.channel.settimeout(max(0.001, min(POLL_S, deadline - time.monotonic())))
            try:
                return self.channel.recv(1 << 16)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    def _drain_stderr(self) -> None:
        while self.channel.recv_stderr_ready():
            data = self.channel.recv_stderr(1 << 16)
            if not data:
                break
            self.errors = (self.errors + data)[-STDERR_TAIL:]

    def exit_status(self) -> int | None:
        # -1 is paramiko's word for a signal or a lost session.
        return self.channel.recv_exit_status() if self.channel.status_event.wait(GRACE_S) else None

    def stderr(self) -> str:
        self._drain_stderr()
        return self.errors.decode(errors="replace")

    def close(self) -> None:
        self.channel.close()


class SshTransport:
    """See `edge.transports.Transport`."""

    def __init__(self, device: Device, connection: fabric.Connection) -> None:
        self.device = device
        self.connection = connection

    def start(self, command: Sequence[str]) -> SshProcess:
        return SshProcess(self.device, self.connection, command)


@contextmanager
def open_transport(device: Device) -> Iterator[SshTransport]:
    """Connect to `device` through its gateways, the first hop first."""
    if device.identity_file and not Path(device.identity_file).expanduser().is_file():
        message = f"the key {device.identity_file} is missing. Set `identity_file` to your private key."
        raise AuthenticationFailed(f"device {device.name!r}: {message}")
    hops = way_to(device)
    with ExitStack() as stack:
        connection = None
        for number, hop in enumerate(hops):
            role = "gateway " if number < len(hops) - 1 else ""
            connection = _connection(device, hop, connection)
            stack.callback(connection.close)
            try:
                connection.open()
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise _explain(device, f"device {device.name!r} ({role}{hop.address})", hop, error) from error
            if number == 0:
                _watch(connection.transport.sock, device.silence_timeout_s)
        yield SshTransport(device, connection)


def _connection(device: Device, hop: Hop, gateway: fabric.Connection | None) -> fabric.Connection:
    connection = fabric.Connection(
        hop.host,
        user=hop.user,
        port=hop.port,
        gateway=gateway if gateway is not None else False,
        config=fabric.Config(lazy=True, ssh_config=SSHConfig()),
        connect_kwargs={
            "key_filename": [str(key) for key in hop.keys],
            "allow_agent": hop.agent,
            "look_for_keys": hop.agent and not hop.keys,
            # "channel_timeout": a gateway's way on to the next hop; paramiko waits an hour otherwise.
            **dict.fromkeys(("timeout", "banner_timeout", "auth_timeout", "channel_timeout"), device.connect_timeout_s),
        },
    )
    connection.client.set_missing_host_key_policy(_Reject())
    for file in hop.known_hosts:
        connection.client.load_system_host_keys(str(file))
    return connection


def _quoted(command: Sequence[str]) -> str:
    """`command` for the device's shell; ~/ at its beginning stays the home folder."""
    program, *arguments = command
    if program.startswith("~/"):
        return " ".join(['"$HOME"/' + shlex.quote(program[2:]), shlex.join(arguments)])
    return shlex.join(command)


def _watch(sock: socket.socket, silence_timeout_s: float) -> None:
    """Let the kernel give up a dead peer: paramiko's keep-alive does not notice one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(1000 * silence_timeout_s)),
        ("TCP_KEEPIDLE", max(1, int(silence_timeout_s / 3))),
        ("TCP_KEEPINTVL", max(1, int(silence_timeout_s / 6))),
    ):
        if hasattr(socket, name):  # absent outside of Linux
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _explain(device: Device, who: str, hop: Hop, error: Exception) -> EdgeError:
    text = str(error) or type(error).__name__
    scan = f"ssh-keyscan -p {hop.port} {hop.host}"
    known_hosts = hop.known_hosts[0]
    if isinstance(error, paramiko.BadHostKeyException):
        advice = f"Either it was set up anew or somebody sits in between. Compare with it, then mend {known_hosts}."
        got = f"its host key is {error.key.fingerprint}, not the known {error.expected_key.fingerprint}"
        return HostKeyRejected(f"{who}: {got}. {advice}")
    if isinstance(error, UnknownHost):
        advice = f"Compare the key with the device's own, then add the line that `{scan}` prints to {known_hosts}."
        return HostKeyRejected(f"{who}: its host key is unknown ({text}). {advice}")
    if isinstance(error, paramiko.PasswordRequiredException):
        return AuthenticationFailed(
            f"{who}: the key has a passphrase. Load it into ssh-agent and leave out `identity_file`."
        )
    # paramiko calls a login that is cut off an authentication error, too.
    refused = isinstance(error, paramiko.AuthenticationException) and not any(word in text for word in CUT_OFF)
    if refused or "No authentication methods" in text:
        keys = ", ".join(map(str, hop.keys)) or "of your ssh-agent"
        advice = f"Check `user`, and that the key {keys} is in its authorized_keys."
        return AuthenticationFailed(f"{who}: it does not accept the key ({text}). {advice}")
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        text = "; ".join(dict.fromkeys(str(reason.strerror or reason) for reason in error.errors.values())).lower()
    if isinstance(error, TimeoutError):
        text = f"no answer within {device.connect_timeout_s:g} s"
    return DeviceUnreachable(
        f"{who}: no SSH connection ({text}). Check `host`, `port` and `gateways`, and that it is on."
    )
