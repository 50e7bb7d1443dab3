"""What the wire costs when a pool is screened: all that a model takes beyond being timed.

A real sshd stands behind a link of its own, 15 ms there and back and 50 Mbit/s (needs root and sshd). One session
sends so many models, of so many MB each, that the device has never seen, and measures them. The time of the timed runs
is taken off the wall clock; connecting, the runner's way there, loading and warming up are not.

    python benchmarks/edge_wire.py [--models 32] [--mb 1] [--rounds 3] [--json OUT]

The figure is the median of the rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

import edge

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/infra"))

import servers
import wan
from sample_models import big_model

# Waiting for a device to become quiet is no matter of the wire.
TIMING = edge.Timing(min_runs=50, min_s=0.05, max_s=0.5, warmup_max_s=0.1, quiet_wait_s=0.0)


def screen(site: servers.Site, models: list[Path], enrolment: dict) -> dict[str, float]:
    """One session in which all `models` are sent and measured."""
    before = site.link.state()
    start = time.perf_counter()
    with edge.connect(site.device()) as session:
        connected_s = time.perf_counter() - start
        records = session.measure([edge.Job(model) for model in models], TIMING, enrolment=enrolment)
    wall_s = time.perf_counter() - start
    failed = [record["reason"] for record in records if record["status"] != "ok"]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(models)} models failed: {failed[0]}")
    after = site.link.state()
    timing_s = sum(timed_s(record) for record in records)
    return {
        "connect_s": connected_s,
        "sent_mb": (after["up_bytes"] - before["up_bytes"]) / 1e6,
        "received_mb": (after["down_bytes"] - before["down_bytes"]) / 1e6,
        "timing_s": timing_s,
        "wall_s": wall_s,
        "s_per_model": (wall_s - timing_s) / len(models),
    }


def timed_s(record: dict) -> float:
    """How long the model and the reference beside it ran in the timed part."""
    return (sum(record["samples_ms"]) + sum(record["reference_samples_ms"])) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--mb", type=float, default=1.0, help="size of a model (default 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if reason := servers.why_not() or wan.why_not():
        raise SystemExit(f"no device behind a link can be made here: {reason}")
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [big_model(folder / f"{n}.onnx", options.mb, seed=n) for n in range(options.models)]
        with edge.connect(edge.Device("here", work_folder=f"{name}/here", lock_file=f"{name}/lock")) as session:
            enrolment = session.enrol()
        link = wan.Link()
        try:
            for number in range(options.rounds):
                site = servers.Site(folder / str(number), link)
                rounds.append(screen(site, models, enrolment))
                site.sshd.stop()
        finally:
            link.close()
    figures = {key: statistics.median(figure[key] for figure in rounds) for key in rounds[0]}
    size = f"{options.models} models of {options.mb:g} MB, 15 ms, 50 Mbit/s, median of {options.rounds}"
    print(size)
    titles = ["connecting, s", "sent, MB", "received, MB", "timing, s", "in all, s", "besides timing, s a model"]
    print(tabulate([list(figures.values())], titles, floatfmt=".2f"))
    if options.json:
        options.json.write_text(json.dumps({"models": options.models, "rounds": rounds, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
