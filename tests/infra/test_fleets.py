"""Several devices in one search, behind a real sshd: measured side by side, each alone, and one of them goes away."""

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from searches import ROOT, Run

pytestmark = [pytest.mark.infra, pytest.mark.workflow]


class Road:
    """The only way to a device: a port that leads to the sshd's, as long as the road is open."""

    def __init__(self, target):
        self.target, self.open, self.pairs = target, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with suppress(OSError):
            while True:
                incoming, _ = self.listener.accept()
                if not self.open:
                    incoming.close()
                    continue
                outgoing = socket.create_connection(("127.0.0.1", self.target))
                self.pairs += [incoming, outgoing]
                for source, sink in ((incoming, outgoing), (outgoing, incoming)):
                    threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source, sink):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.open = False
        for end in self.pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def roads(sshd):
    roads = Road(sshd.port), Road(sshd.port)
    yield roads
    for road in roads:
        road.close()
        road.listener.close()


@pytest.fixture
def fleet(sshd, roads, tmp_path):
    """A search on two devices, `near` and `far`, each at the end of a road of its own."""
    run = Run(tmp_path / "run", ROOT)
    run.folder.mkdir()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text("".join(f"[127.0.0.1]:{road.port} {sshd.host_key}\n" for road in roads))
    run.config["devices"] = {}
    for name, road in zip(("near", "far"), roads, strict=True):
        device = sshd.device(tmp_path / name)
        run.config["devices"][name] = {
            "transport": "ssh", "host": "127.0.0.1", "port": road.port, "user": device.user, "budget_ms": 1000,
            "identity_file": device.identity_file, "known_hosts": str(known_hosts), "python": device.python,
            "work_folder": device.work_folder, "lock_file": device.lock_file, "reconnect_s": 3,
        }  # fmt: skip
    run.config["baselines"] = {}
    run.config["search"] |= {"max_generations": 1, "objective_device": "worst"}
    run.config["screening"]["pool"] = 2
    run.config["measurement"] |= {"min_s": 3, "max_s": 3}
    return run


def work(file: Path) -> list[float]:
    return json.loads(file.read_text())["work"]


def overlap(first, second):
    return first[0] < second[1] and second[0] < first[1]


def test_a_device_that_goes_away_stops_nothing_else_and_gets_what_it_is_owed_when_it_is_back(fleet, roads):
    _, road = roads
    decided = fleet.path("generations/000/population.json")

    def go_away():
        while not decided.exists():
            time.sleep(0.05)
        road.close()

    leaving = threading.Thread(target=go_away, daemon=True)
    leaving.start()
    output = fleet.snakemake(fails=True)
    candidates = json.loads(decided.read_text())["candidates"]
    assert len(candidates) == 2
    for name in candidates:
        folder = fleet.path("candidates") / name
        assert (folder / "train.json").exists() and (folder / "measure.near.json").exists()
        assert not (folder / "measure.far.json").exists()
    assert "device 'far'" in output and "no SSH connection" in output
    assert "device 'far' is still owed: the measurement of 2 networks" in output
    assert "device 'near' is still owed" not in output
    # No decision without the figures of a device that decides.
    assert not fleet.path("generations/000/state.json").exists()

    screened = [work(fleet.path(f"generations/000/screening.{device}.json")) for device in ("near", "far")]
    assert overlap(*screened), "devices are measured side by side"
    near = [work(fleet.path("candidates") / name / "measure.near.json") for name in candidates]
    assert not overlap(*near), "a device is measured by one job at a time"

    before = fleet.contents("candidates/*/*.json")
    road.open = True
    output = fleet.snakemake()
    executed = fleet.executed(output)
    assert executed["measure"] == 2 and executed["select"] == 1
    assert executed["train"] == executed["screen"] == executed["enrol"] == 0
    assert "is still owed" not in output
    assert before.items() <= fleet.contents("candidates/*/*.json").items()
    state = json.loads(fleet.path("generations/000/state.json").read_text())
    assert state["objectives"] == ["val_rmse", "worst_latency_share"]
    for entry in state["candidates"].values():
        shares = [entry["devices"][device]["latency_ms"] / 1000 for device in ("near", "far")]
        assert entry["objectives"][1] == max(shares)
