"""Real sshds for tests and benchmarks: each with keys and files of its own, here or at the far end of a `wan.Link`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from wan import Link

from edge import Device

SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
USER = os.environ.get("USER") or subprocess.run(["id", "-un"], text=True, stdout=-1).stdout.strip()


def why_not() -> str | None:
    """Why no sshd can be started; None where one can."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        return "sshd and ssh-keygen are not installed (Debian: apt-get install openssh-server)"
    return None


def make_key(path: Path) -> str:
    """A fresh ed25519 key pair at `path`; its public half as text."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


class Sshd:
    """An sshd with its keys in `folder`: `key` may log in, `other_key` may not. `address` and `port`: where it listens;
    with a `link`, at the link's far end. `more` are lines of its sshd_config."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", link: Link | None = None, **more: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.address, self.link, self.user = folder, address, link, USER
        self.key, self.other_key = folder / "client", folder / "other"
        public, self.host_key = make_key(self.key), make_key(folder / "host")
        make_key(self.other_key)
        (folder / "authorized_keys").write_text(public + "\n")
        self.port = 22 if link else _free_port()
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"{self.known_as(address)} {self.host_key}\n")
        options = {
            "ListenAddress": address,
            "Port": self.port,
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized_keys",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "AllowTcpForwarding": "yes",
            "LogLevel": "VERBOSE",
            "SetEnv": f"HOME={folder}",  # a home without start-up files of a shell
            **more,
        }
        (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd run by root refuses to start without it
        command = [SSHD, "-D", "-e", "-f", self.folder / "config"]
        listening = self.log().count("Server listening")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.link.inside(command) if self.link else command, stderr=log)
        for _ in range(200):
            if self.log().count("Server listening") > listening:
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        raise TimeoutError(f"sshd does not listen: {self.log()}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it the signal `number` and wait for its end. Sessions go on."""
        self.process.send_signal(number)
        self.process.wait(10)

    def admit(self, key: Path) -> None:
        """Let `key` log in, too."""
        with open(self.folder / "authorized_keys", "a") as file:
            file.write(key.with_name(key.name + ".pub").read_text())

    def known_as(self, name: str) -> str:
        """Its name in a file of known hosts when it is called `name`."""
        return name if self.port == 22 else f"[{name}]:{self.port}"

    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    def entry(self, folder: Path, **changes: object) -> dict[str, object]:
        """The entry of a device behind this sshd whose work folder and lock are in `folder`."""
        return {
            "transport": "ssh",
            "host": self.address,
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.key),
            "known_hosts": str(self.known_hosts),
            "ssh_config": "/dev/null",
            "python": sys.executable,
            "work_folder": str(folder / "work"),
            "lock_file": str(folder / "lock"),
            "connect_timeout_s": 10,
            **changes,
        }

    def device(self, folder: Path, **changes: object) -> Device:
        """The same as a `Device`, with the name "loopback", or "far" behind a link."""
        return Device.from_config("far" if self.link else "loopback", self.entry(folder, **changes))


class Site:
    """A device's site behind a link: its sshd, and who is at work there."""

    def __init__(self, folder: Path, link: Link) -> None:
        self.folder, self.link = folder, link
        self.sshd = Sshd(folder / "sshd", link.there, link)

    def device(self, **changes: object) -> Device:
        """The device there."""
        return self.sshd.device(self.folder, **changes)

    def at_work(self) -> dict[int, str]:
        """Our processes there, by pid."""
        return {pid: command for pid, command in self.link.processes().items() if "sshd" not in command}

    def power_off(self) -> None:
        """Kill everything there at once, and tell nobody."""
        self.link.set(cut=True)
        while found := self.link.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.sshd.process.poll()
            time.sleep(0.01)

    def power_on(self) -> None:
        """Start its sshd again and open the link."""
        self.sshd.start()
        self.link.set(cut=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
