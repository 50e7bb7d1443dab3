"""The way to a device hop by hop: from its entry in the configuration, and from ssh_config, which the program `ssh`
reads for us (`ssh -G`): Host, Match, Include and all else mean what they mean there."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .device import Device, parse_gateway
from .errors import DeviceUnreachable, KnownHostsMissing

LONGEST_WAY = 16
KNOWN_HOSTS = "~/.ssh/known_hosts"
USED = ("hostname", "port", "user", "identityfile", "identitiesonly", "userknownhostsfile", "globalknownhostsfile",
        "proxyjump", "proxycommand")  # fmt: skip


@dataclass(frozen=True)
class Hop:
    """A login on the way. `name` is what it was called; `keys` are files, the agent's are tried besides when `agent`;
    `known_hosts` lists the files that exist."""

    name: str
    host: str
    port: int
    user: str | None
    keys: tuple[Path, ...]
    agent: bool
    known_hosts: tuple[Path, ...]

    @property
    def address(self) -> str:
        """user@host:port, for messages."""
        return f"{self.user + '@' if self.user else ''}{self.host}:{self.port}"


def way_to(device: Device) -> list[Hop]:
    """The hops to `device`, itself last. What its entry says counts more than ssh_config; `gateways` replace a
    ProxyJump. As in ssh, the first gateway's own ProxyJump is followed.

    KnownHostsMissing where no file of known hosts exists; DeviceUnreachable for an ssh_config that cannot be read or
    asks for what is not supported here."""
    options = _lookup(device, str(device.host))
    jumps = list(device.gateways) or _jumps(options)
    last = _hop(device, (device.user, str(device.host), device.port), options)
    return [*_through(device, jumps, 0), last]


def _through(device: Device, jumps: Sequence[str], depth: int) -> list[Hop]:
    """The hops of a ProxyJump; the way to the first of them before it."""
    if not jumps:
        return []
    if depth > LONGEST_WAY:
        raise DeviceUnreachable(
            f"device {device.name!r}: more than {LONGEST_WAY} gateways on the way. Does a ProxyJump of "
            f"{device.ssh_config} lead back to itself?"
        )
    hops = []
    for number, jump in enumerate(jumps):
        try:
            target = parse_gateway(jump.removeprefix("ssh://"))
        except ValueError as error:
            raise DeviceUnreachable(f"device {device.name!r}: ProxyJump in {device.ssh_config}: {error}") from None
        options = _lookup(device, target[1])
        if number == 0:
            hops += _through(device, _jumps(options), depth + 1)
        hops.append(_hop(device, target, options))
    return hops


def _lookup(device: Device, host: str) -> dict[str, list[str]]:
    """What ssh_config says of `host`, by option in lower case; nothing where there is no such file."""
    path = Path(device.ssh_config).expanduser()
    if not path.exists():
        if device.ssh_config == Device.ssh_config:
            return {}
        raise DeviceUnreachable(
            f"device {device.name!r}: the file {path} is missing. Set `ssh_config` to one that exists, or leave it out."
        )
    identity = ["-i", device.identity_file] if device.identity_file else []
    try:
        done = subprocess.run(
            ["ssh", "-G", "-F", path, *identity, "--", host], capture_output=True, text=True, timeout=30
        )
    except FileNotFoundError:
        raise DeviceUnreachable(
            f"device {device.name!r}: the program ssh is needed to read {path}. Install OpenSSH's client, or set "
            "`ssh_config: /dev/null`."
        ) from None
    if done.returncode:
        raise DeviceUnreachable(f"device {device.name!r}: {path} cannot be used: {' '.join(done.stderr.split())}")
    options: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        if key in USED and value != "none":
            options.setdefault(key, []).append(value)
    if "proxycommand" in options:
        raise DeviceUnreachable(
            f"device {device.name!r}: {path} has a ProxyCommand for {host!r}, which is not supported. Use ProxyJump, "
            "or `gateways` in the device's entry."
        )
    return options


def _jumps(options: Mapping[str, Sequence[str]]) -> list[str]:
    return options["proxyjump"][0].split(",") if "proxyjump" in options else []


def _hop(device: Device, target: tuple[str | None, str, int | None], options: Mapping[str, Sequence[str]]) -> Hop:
    user, name, port = target
    keys = options.get("identityfile") or ([device.identity_file] if device.identity_file else [])
    only = bool(device.identity_file) or options.get("identitiesonly") == ["yes"]
    found = (Path(key).expanduser() for key in dict.fromkeys(keys))
    return Hop(
        name=name,
        host=options.get("hostname", [name])[0],
        port=port or int(options.get("port", ["22"])[0]),
        user=user or options.get("user", [None])[0],
        keys=tuple(path for path in found if path.is_file()),
        agent=not only,
        known_hosts=_known_hosts(device, options),
    )


def _known_hosts(device: Device, options: Mapping[str, Sequence[str]]) -> tuple[Path, ...]:
    if device.known_hosts:
        names = [device.known_hosts]
    else:
        names = options.get("userknownhostsfile", [KNOWN_HOSTS])[0].split()
        names += options.get("globalknownhostsfile", [""])[0].split()
    files = tuple(path for path in (Path(name).expanduser() for name in names) if path.is_file())
    if not files:
        advice = "Add the host keys of the device and its gateways there (docs/edge-devices.md), or set `known_hosts`."
        raise KnownHostsMissing(f"device {device.name!r}: the file of known hosts {names[0]} is missing. {advice}")
    return files
