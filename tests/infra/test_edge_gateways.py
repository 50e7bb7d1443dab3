"""The ways to a device that nobody can reach directly: gateways, ssh_config, a tunnel that the device opens itself."""

import itertools
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Sshd, make_key

import edge

pytestmark = pytest.mark.infra
ROOT = Path(__file__).parents[2]
QUICK = edge.Timing(quiet_wait_s=0, min_runs=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1)


@pytest.fixture
def hops(link, tmp_path) -> list[Sshd]:
    """Two gateways and a device. Only the first one can be reached from here; the others listen on the far side alone,
    each with a host key and a user's key of its own."""
    places = {"outer": link.there, "inner": "127.0.0.2", "device": "127.0.0.3"}
    return [Sshd(tmp_path / name, address, link) for name, address in places.items()]


def known(path: Path, servers: list[Sshd]) -> str:
    path.write_text("".join(server.known_hosts.read_text() for server in servers))
    return str(path)


def measured(device: edge.Device, enrolment: dict, model: Path) -> str:
    with edge.connect(device) as session:
        (record,) = session.measure([edge.Job(model)], QUICK, enrolment=enrolment)
    return record["status"]


def test_a_device_behind_two_gateways_is_measured_and_each_host_key_is_checked(hops, tmp_path, enrolment, model):
    device_key = hops[-1].key
    for gateway in hops[:-1]:
        gateway.admit(device_key)
    gateways = [f"{hop.user}@{hop.address}:{hop.port}" for hop in hops[:-1]]

    def device(trusted: list[Sshd]) -> edge.Device:
        return hops[-1].device(tmp_path, gateways=gateways, known_hosts=known(tmp_path / "known", trusted))

    for trusted in itertools.combinations(hops, 2):
        (stranger,) = set(hops) - set(trusted)
        with (
            pytest.raises(edge.HostKeyRejected, match=re.escape(f"{stranger.address}:22")),
            edge.connect(device(list(trusted))),
        ):
            pass
    assert measured(device(hops), enrolment, model) == "ok"
    alone = hops[-1].device(tmp_path, known_hosts=known(tmp_path / "known", hops))
    with pytest.raises(edge.EdgeError), edge.connect(alone):  # there is no other way
        pass


def ssh_config(hops: list[Sshd], known_hosts: dict[str, str]) -> str:
    """The device's ProxyJump is the inner gateway, whose ProxyJump is the outer one; each hop has keys of its own."""
    text, before = "", None
    for name, hop in zip(("outer", "inner", "factory"), hops, strict=True):
        text += f"Host {name}\n HostName {hop.address}\n Port {hop.port}\n User {hop.user}\n IdentityFile {hop.key}\n"
        text += f" IdentitiesOnly yes\n UserKnownHostsFile {known_hosts[name]}\n GlobalKnownHostsFile /dev/null\n"
        text += f" ProxyJump {before}\n" if before else ""
        before = name
    return text


def test_aliases_keys_ports_and_nested_gateways_come_from_ssh_config(hops, tmp_path, enrolment, model):
    files = {name: str(hop.known_hosts) for name, hop in zip(("outer", "inner", "factory"), hops, strict=True)}
    (tmp_path / "config").write_text(f"Include {tmp_path}/aliases\n")
    (tmp_path / "aliases").write_text(ssh_config(hops, files))
    own = {key: None for key in ("port", "user", "identity_file", "known_hosts")}
    device = hops[-1].device(tmp_path, host="factory", ssh_config=str(tmp_path / "config"), **own)
    assert measured(device, enrolment, model) == "ok"

    imposter = tmp_path / "imposter"
    imposter.write_text(f"127.0.0.2 {make_key(tmp_path / 'key-of-imposter')}\n")
    (tmp_path / "aliases").write_text(ssh_config(hops, files | {"inner": str(imposter)}))
    with pytest.raises(edge.HostKeyRejected, match=r"'far' \(gateway .*127\.0\.0\.2:22\).*not the known"):
        measured(device, enrolment, model)


def test_a_gateway_that_cannot_reach_the_device_is_told_from_one_that_cannot_be_reached(hops, tmp_path):
    hops[0].admit(hops[-1].key)
    gateway = f"{hops[0].user}@{hops[0].address}:22"
    trusted = known(tmp_path / "known", hops)
    hops[-1].stop()
    with (
        pytest.raises(edge.DeviceUnreachable) as caught,
        edge.connect(hops[-1].device(tmp_path, gateways=[gateway], known_hosts=trusted)),
    ):
        pass
    assert "gateway" not in str(caught.value).partition(":22)")[0]
    hops[0].stop()
    with (
        pytest.raises(edge.DeviceUnreachable, match=r"\(gateway .*refused"),
        edge.connect(hops[-1].device(tmp_path, gateways=[gateway], known_hosts=trusted)),
    ):
        pass


def unit(name: str) -> dict[str, str]:
    """The settings of the systemd unit `name` in docs/edge-devices.md."""
    text = (ROOT / "docs/edge-devices.md").read_text()
    block = re.search(rf"# /etc/systemd/system/{re.escape(name)}\n(.*?)```", text, re.DOTALL)[1]
    return dict(re.findall(r"^\s*(\w+)=(.*)$", block, re.MULTILINE))


class Service:
    """Does what systemd does with `Restart=always`: the command of the unit in the docs, again whenever it ends."""

    def __init__(self, start: Callable[[], subprocess.Popen], restart_s: float) -> None:
        self.start, self.restart_s, self.over, self.starts = start, restart_s, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.over.is_set():
            process = self.start()
            self.starts += 1
            while process.poll() is None and not self.over.wait(0.05):
                pass
            process.kill()
            process.wait()
            self.over.wait(self.restart_s)

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


def test_a_device_that_lets_nobody_in_is_measured_through_the_tunnel_that_it_opens(link, tmp_path, enrolment, model):
    settings = unit("edgeloop-tunnel.service")
    assert settings["Restart"] == "always"
    # The docs say 15 s and 10 s; a test does not wait for so long.
    meeting = Sshd(tmp_path / "meeting", "0.0.0.0", ClientAliveInterval=1, ClientAliveCountMax=2)
    device = Sshd(tmp_path / "device", "127.0.0.3", link)
    names = tmp_path / "known_meeting"
    names.write_text(f"[{link.here}]:{meeting.port} {meeting.host_key}\n")
    tunnel_key = tmp_path / "tunnel"
    public = make_key(tunnel_key)
    far_port = meeting.port + 1 if meeting.port < 65535 else meeting.port - 1
    command = settings["ExecStart"]
    for before, after in {
        "/usr/bin/ssh": str(shutil.which("ssh")),
        "/etc/edgeloop/tunnel": str(tunnel_key),
        "/etc/edgeloop/known_hosts": str(names),
        "ServerAliveInterval=15": "ServerAliveInterval=1",
        "127.0.0.1:2207:127.0.0.1:22": f"127.0.0.1:{far_port}:127.0.0.3:22",
        "tunnel@cluster.example.org": f"-p {meeting.port} {meeting.user}@{link.here}",
    }.items():
        assert before in command, (before, command)
        command = command.replace(before, after)
    (options,) = re.findall(r"^(restrict,\S+) ssh-ed25519", (ROOT / "docs/edge-devices.md").read_text(), re.MULTILINE)
    with open(meeting.folder / "authorized_keys", "a") as file:
        file.write(f"{options.replace('2207', str(far_port))} {public}\n")
    trusted = tmp_path / "known"
    trusted.write_text(f"[127.0.0.1]:{far_port} {device.host_key}\n")
    way = {"host": "127.0.0.1", "port": far_port, "known_hosts": str(trusted)}
    short = {"silence_timeout_s": 3.0, "connect_timeout_s": 3.0, "reconnect_s": 60.0}

    service = Service(lambda: subprocess.Popen(link.inside(command.split())), restart_s=1)
    try:
        with edge.connect(device.device(tmp_path, **way, **short), patient=True) as session:
            (record,) = session.measure([edge.Job(model)], QUICK, enrolment=enrolment)
            assert record["status"] == "ok"
            starts = service.starts
            cutter = threading.Timer(2.0, link.set, kwargs={"cut": True})
            mender = threading.Timer(9.0, link.set, kwargs={"cut": False})
            cutter.start(), mender.start()
            begin = time.monotonic()
            (record,) = session.measure(
                [edge.Job(model)], edge.Timing(quiet_wait_s=0, min_s=5, max_s=5), enrolment=enrolment
            )
            assert record["status"] == "ok"
            assert session.reconnections == 1 and service.starts > starts
            assert time.monotonic() - begin > 9
    finally:
        service.stop()
        meeting.stop()
