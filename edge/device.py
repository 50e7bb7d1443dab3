"""A device: a named entry of the configuration that says how to reach the machine and how to use it."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

LOCAL_DEFAULT = "this-machine"


@dataclass(frozen=True)
class Device:
    """A machine that measures. Times are in seconds unless named otherwise.

    `transport` is a name of the registry in `edge.transports`; `host` to `gateways` count for "ssh" only. `cpus` pins
    the runs to these cores. `deadline_s` is the longest that one model may hold the device, `lock_timeout_s` how long
    to wait for the others who use it, `silence_timeout_s` how long a session may be silent before it counts as lost
    (the runner says something every 5 s). A device that is lost is tried again for `reconnect_s`.

    What `port`, `user`, `identity_file`, `known_hosts` and `gateways` leave open, the file `ssh_config` says, as it
    does for the program ssh.
    """

    name: str
    transport: str = "local"
    budget_ms: float | None = None
    budget_memory_mb: float | None = None
    budget_energy_mj: float | None = None
    python: str | None = None
    work_folder: str = "~/.cache/edgeloop"
    cache_mb: int = 512
    threads: int = 1
    cpus: tuple[int, ...] | None = None
    batch_sizes: tuple[int, ...] = (1,)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    host: str | None = None
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    known_hosts: str | None = None
    gateways: tuple[str, ...] = ()
    ssh_config: str = "~/.ssh/config"
    deadline_s: float = 120.0
    lock_file: str = "/tmp/edgeloop.lock"
    lock_timeout_s: float = 600.0
    connect_timeout_s: float = 15.0
    silence_timeout_s: float = 25.0
    reconnect_s: float = 120.0

    def __post_init__(self) -> None:
        for key in ("cpus", "batch_sizes", "providers", "gateways"):
            value = getattr(self, key)
            if isinstance(value, list):
                object.__setattr__(self, key, tuple(value))
        if self.python is None:
            object.__setattr__(self, "python", sys.executable if self.transport == "local" else "python3")
        _check(self)

    @classmethod
    def from_config(cls, name: str, mapping: Mapping[str, Any] | None) -> "Device":
        """The device `name` from its entry of the configuration. ValueError names the device, the key and what was
        expected."""
        if mapping is None:
            mapping = {}
        if not isinstance(mapping, Mapping):
            raise ValueError(f"device {name!r}: expected a mapping of keys, got {mapping!r}")
        known = {f.name for f in fields(cls)} - {"name"}
        unknown = sorted(set(mapping) - known)
        if unknown:
            hint = " Passwords do not belong into a configuration; use a key." if "password" in unknown else ""
            raise ValueError(f"device {name!r}: unknown key {unknown[0]!r}; expected one of {sorted(known)}.{hint}")
        given = {key: value for key, value in mapping.items() if value is not None or _default(key) is None}
        return cls(name=name, **given)

    @property
    def address(self) -> str:
        """Where the device is, for messages."""
        if self.transport != "ssh":
            return self.transport
        return f"{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


def parse_gateway(text: str) -> tuple[str | None, str, int | None]:
    """(user, host, port) of "user@host:port"; user and port may be left out and are then None. ValueError otherwise."""
    user, _, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon:
        host, port = rest, ""
    if not host or ":" in host or (colon and not (port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(f"expected user@host:port, got {text!r}")
    return user or None, host, int(port) if port else None


def _default(key: str) -> Any:
    default = next(f.default for f in fields(Device) if f.name == key)
    return None if default is MISSING else default


def _check(device: Device) -> None:
    def refuse(key: str, expected: str) -> None:
        value = getattr(device, key)
        raise ValueError(f"device {device.name!r}: {key} is {value!r}; expected {expected}")

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    from .transports import TRANSPORTS  # the registry imports the transports, and they import this module

    if device.transport not in TRANSPORTS:
        refuse("transport", f"one of {sorted(TRANSPORTS)}")
    for key in ("python", "work_folder", "lock_file", "ssh_config"):
        value = getattr(device, key)
        if not isinstance(value, str) or not value or "\n" in value:
            refuse(key, "a path")
    if not device.lock_file.startswith("/"):
        refuse("lock_file", "an absolute path that all users of the device share")
    for key in ("host", "user", "identity_file", "known_hosts"):
        value = getattr(device, key)
        if value is not None and (not isinstance(value, str) or not value):
            refuse(key, "text")
    if device.transport == "ssh" and device.host is None:
        refuse("host", "the name or address of the device, since its transport is ssh")
    if device.transport == "local" and device.host is not None:
        refuse("host", "none, since its transport is local (did you mean `transport: ssh`?)")
    if device.budget_ms is not None and not (number(device.budget_ms) and device.budget_ms > 0):
        refuse("budget_ms", "a latency above 0 in milliseconds")
    if device.budget_memory_mb is not None and not (number(device.budget_memory_mb) and device.budget_memory_mb > 0):
        refuse("budget_memory_mb", "a size above 0 in MB")
    if device.budget_energy_mj is not None and not (number(device.budget_energy_mj) and device.budget_energy_mj > 0):
        refuse("budget_energy_mj", "an energy above 0 in mJ")
    sizes = device.batch_sizes
    if not (isinstance(sizes, tuple) and sizes and all(whole(n) and n > 0 for n in sizes)) or len({*sizes}) < len(
        sizes
    ):
        refuse("batch_sizes", "a list of different whole numbers above 0, for example [1, 8]")
    for key in ("deadline_s", "connect_timeout_s", "silence_timeout_s"):
        if not (number(getattr(device, key)) and getattr(device, key) > 0):
            refuse(key, "a time above 0 in seconds")
    for key in ("lock_timeout_s", "reconnect_s"):
        if not (number(getattr(device, key)) and getattr(device, key) >= 0):
            refuse(key, "a time in seconds, 0 or more")
    for key in ("threads", "cache_mb"):
        if not (whole(getattr(device, key)) and getattr(device, key) > 0):
            refuse(key, "a whole number above 0")
    if device.port is not None and not (whole(device.port) and 0 < device.port < 65536):
        refuse("port", "a port from 1 to 65535")
    if device.cpus is not None and not (
        isinstance(device.cpus, tuple) and device.cpus and all(whole(c) and c >= 0 for c in device.cpus)
    ):
        refuse("cpus", "a list of core numbers, for example [2, 3]")
    if not (
        isinstance(device.providers, tuple)
        and device.providers
        and all(isinstance(p, str) and p.endswith("ExecutionProvider") for p in device.providers)
    ):
        refuse("providers", "a list of onnxruntime providers, for example [CPUExecutionProvider]")
    if not isinstance(device.gateways, tuple):
        refuse("gateways", "a list of user@host:port, the first hop first")
    for key, values in (("user", [device.user]), ("host", [device.host]), ("gateways", device.gateways)):
        if any(":" in str(value).rpartition("@")[0] or (key == "user" and ":" in str(value)) for value in values):
            raise ValueError(  # without the value: it would be in the log
                f"device {device.name!r}: {key} seems to have a password in it. Passwords do not belong into a "
                "configuration; use a key."
            )
    for gateway in device.gateways:
        try:
            parse_gateway(gateway if isinstance(gateway, str) else "")
        except ValueError:
            refuse("gateways", "a list of user@host:port, the first hop first")
