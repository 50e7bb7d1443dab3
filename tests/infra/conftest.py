"""A real sshd on the loopback, with a port, keys and files of its own: started for these tests, stopped by its PID."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge import Device

SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")


@dataclass(frozen=True)
class Sshd:
    """What a test needs to know of the running sshd."""

    port: int
    user: str
    key: Path
    other_key: Path
    host_key: str
    known_hosts: Path
    folder: Path
    process: subprocess.Popen

    def device(self, folder: Path, **changes) -> Device:
        """A device behind this sshd whose work folder and lock are in `folder`."""
        entry = {
            "transport": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.key),
            "known_hosts": str(self.known_hosts),
            "python": sys.executable,
            "work_folder": str(folder / "work"),
            "lock_file": str(folder / "lock"),
            "connect_timeout_s": 10,
        }
        return Device.from_config("loopback", entry | changes)

    @staticmethod
    def make_key(path: Path) -> str:
        """A fresh ed25519 key pair at `path`; its public half as text."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])

    def log(self) -> str:
        """What the sshd has logged so far."""
        return (self.folder / "log").read_text()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory) -> Iterator[Sshd]:
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd and ssh-keygen are not installed (Debian: apt-get install openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    key, other_key = folder / "client", folder / "other"
    public, host_key = Sshd.make_key(key), Sshd.make_key(folder / "host")
    Sshd.make_key(other_key)
    (folder / "authorized_keys").write_text(public + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_key}\n")
    options = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "AllowTcpForwarding": "yes",
        "LogLevel": "VERBOSE",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd run by root refuses to start without it
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        user = os.environ.get("USER") or subprocess.run(["id", "-un"], text=True, stdout=-1).stdout.strip()
        yield Sshd(port, user, key, other_key, host_key, known_hosts, folder, process)
    finally:
        process.terminate()
        process.wait(10)
