"""A long way to a device: two TUN interfaces, one here and one in a network namespace of its own, and between them a
program that delays, drops, damages and slows down what they exchange. (netem, where a kernel has it, does less: it
cannot cut after so many bytes.)

The program is this file, run by `Link`. It reads changes of `Settings` (lines of JSON) from stdin, answers each with
what it has carried, and ends with its parent; namespace and interfaces end with it.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

TUN, TUNSETIFF, IFF_TUN_NO_PI = "/dev/net/tun", 0x400454CA, 0x1001
CLONE_NEWNET = 0x40000000
QUEUE_S = 0.1
TCP = 6


@dataclass(frozen=True)
class Settings:
    """What the link does to packets, each way: `delay_ms` of its own, a share of them lost, `rate_mbit` (0: any).

    `cut_up_after` and `cut_down_after`: the link goes down for `cut_s` seconds (None: for good) once so many bytes have
    gone to the device, or have come from it, since this was set. `flip_up_after`: then one bit of one TCP segment is
    flipped, with its checksum made right again, so that TCP does not notice."""

    delay_ms: float = 0.0
    rate_mbit: float = 0.0
    loss: float = 0.0
    cut: bool = False
    cut_s: float | None = None
    cut_up_after: int | None = None
    cut_down_after: int | None = None
    flip_up_after: int | None = None


WAN = Settings(delay_ms=7.5, rate_mbit=50)
"""15 ms there and back, 50 Mbit/s."""


def why_not() -> str | None:
    """Why there can be no such link on this machine; None where there can."""
    for program in ("ip", "nsenter", "unshare"):
        if not any(os.access(f"{folder}/{program}", os.X_OK) for folder in os.get_exec_path()):
            return f"the program {program} is missing (Debian: apt-get install iproute2 util-linux)"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} cannot be opened: making a network link needs root"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "no right to make a network namespace: it needs root"
    return None


class Link:
    """The link and the namespace behind it. `here` and `there` are the addresses of its ends."""

    def __init__(self, settings: Settings = WAN) -> None:
        self.settings, self.lock = settings, threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # 198.18.0.0/15 is set aside for tests of network devices (RFC 2544).
        first = (198 << 24) + (18 << 16) + 2 * (self.process.pid % (1 << 16))
        self.here, self.there = (".".join(str(n >> s & 255) for s in (24, 16, 8, 0)) for n in (first, first + 1))
        self.set()

    def set(self, **changes: object) -> dict[str, int]:
        """Change settings; the state after it. What is to happen after so many bytes counts them from now."""
        self.settings = replace(self.settings, **changes)
        return self._ask(json.dumps({"ends": [self.here, self.there], **asdict(self.settings)}))

    def state(self) -> dict[str, int]:
        """What has been carried so far, `up_bytes` and `down_bytes`, and whether the link is `cut`."""
        return self._ask("")

    def _ask(self, line: str) -> dict[str, int]:
        with self.lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the link ended with exit status {self.process.wait()}")
        return json.loads(answer)

    def inside(self, command: Sequence[object]) -> list[str]:
        """`command`, to be run at the far end."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *map(str, command)]

    def processes(self) -> dict[int, str]:
        """The command lines of all processes at the far end, by pid."""
        space = os.stat(f"/proc/{self.process.pid}/ns/net").st_ino
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    if os.stat(entry / "ns/net").st_ino == space:
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:  # it has ended
                    continue
        return {pid: command for pid, command in found.items() if command}  # the others are zombies

    def close(self) -> None:
        """End everything at the far end, and the link."""
        while remaining := self.processes():
            for pid in remaining:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)
        self.process.stdin.close()
        self.process.wait(10)


# ---------------------------------------------------------------- the program


def open_end(name: str, address: str, peer: str) -> int:
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN_NO_PI))
    for command in (f"addr add {address} peer {peer} dev {name}", f"link set {name} up txqueuelen 1000"):
        subprocess.run(["ip", *command.split()], check=True)
    return device


def flip_bit(packet: bytes) -> bytes | None:
    """The packet with a bit of its TCP payload flipped and the checksum as if nothing had been; None for others."""
    header = 4 * (packet[0] & 15)
    if packet[0] >> 4 != 4 or packet[9] != TCP:
        return None
    start = header + 4 * (packet[header + 12] >> 4)
    if len(packet) < start + 4:
        return None
    changed = bytearray(packet)
    at = (start - header + 1) // 2 * 2 + header  # a 16-bit word of the checksum
    (before,) = struct.unpack_from("!H", packet, at)
    changed[at] ^= 1
    (after,) = struct.unpack_from("!H", changed, at)
    (checksum,) = struct.unpack_from("!H", packet, header + 16)
    total = (~checksum & 0xFFFF) + (~before & 0xFFFF) + after  # RFC 1624
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", changed, header + 16, ~total & 0xFFFF)
    return bytes(changed)


class Carrier:
    """The loop that carries packets between the two ends."""

    def __init__(self, near: int, far: int) -> None:
        self.other = {near: far, far: near}
        self.way = {near: "up", far: "down"}
        self.total = {"up": 0, "down": 0}
        self.since = dict(self.total)
        self.free = {near: 0.0, far: 0.0}
        self.cut_until = 0.0
        self.queue: list[tuple[float, int, int, bytes]] = []
        self.number = 0
        self.settings = Settings()

    def change(self, settings: Settings) -> None:
        self.settings, self.since = settings, dict.fromkeys(self.since, 0)
        self.cut_until = float("inf") if settings.cut else 0.0
        self.armed = {"up": settings.cut_up_after, "down": settings.cut_down_after}
        self.flip_after = settings.flip_up_after

    def carry(self, source: int, packet: bytes) -> None:
        way, now = self.way[source], time.monotonic()
        if now < self.cut_until or random.random() < self.settings.loss:
            return
        self.total[way] += len(packet)
        self.since[way] += len(packet)
        if self.armed[way] is not None and self.since[way] > self.armed[way]:
            self.armed[way] = None
            self.cut_until = float("inf") if self.settings.cut_s is None else now + self.settings.cut_s
            self.queue.clear()
            return
        if way == "up" and self.flip_after is not None and self.since[way] > self.flip_after:
            changed = flip_bit(packet)
            if changed:
                packet, self.flip_after = changed, None
        target = self.other[source]
        due = now
        if self.settings.rate_mbit:
            start = max(now, self.free[target])
            if start - now > QUEUE_S:
                return  # the bottleneck's queue is full
            due = self.free[target] = start + len(packet) * 8 / (self.settings.rate_mbit * 1e6)
        self.number += 1
        heapq.heappush(self.queue, (due + self.settings.delay_ms / 1e3, self.number, target, packet))

    def run(self) -> None:
        while True:
            wait_s = max(0.0, self.queue[0][0] - time.monotonic()) if self.queue else 1.0
            for source in select.select([0, *self.other], [], [], wait_s)[0]:
                if source == 0:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    if line.strip():
                        self.change(settings_of(json.loads(line)))
                    self.answer()
                    continue
                for _ in range(64):
                    try:
                        packet = os.read(source, 1 << 16)
                    except BlockingIOError:
                        break
                    self.carry(source, packet)
            now = time.monotonic()
            while self.queue and self.queue[0][0] <= now:
                _, _, target, packet = heapq.heappop(self.queue)
                try:
                    os.write(target, packet)
                except OSError:  # its queue is full
                    continue

    def answer(self) -> None:
        state = {f"{way}_bytes": count for way, count in self.total.items()}
        print(json.dumps({**state, "cut": time.monotonic() < self.cut_until}), flush=True)


def settings_of(line: dict[str, object]) -> Settings:
    return Settings(**{key: value for key, value in line.items() if key != "ends"})


def main() -> None:
    """Carry until stdin ends. The namespace of the far end is this process's own."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: end with the tests
    first = json.loads(sys.stdin.readline())
    here, there = first["ends"]
    name = f"wan{os.getpid() % (1 << 16)}"
    near = open_end(name + "a", here, there)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    carrier = Carrier(near, open_end(name + "b", there, here))
    carrier.change(settings_of(first))
    carrier.answer()
    carrier.run()


if __name__ == "__main__":
    main()
