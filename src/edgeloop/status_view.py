"""The status of a run on a terminal: once, or as long as somebody watches."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeloop.status import Job, Status, duration, gather

SPARKS = "▁▂▃▄▅▆▇█"
SHOWN = 8


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to those of a command line."""
    command = commands.add_parser("status", help="how far the run is, from its files alone")
    command.add_argument("--directory", type=Path, default=Path(), metavar="RUN", help="its folder, or a copy of that")
    command.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")
    command.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two looks (default: 2)")
    command.set_defaults(run=show)


def show(options: argparse.Namespace) -> int:
    """Print the status; with `--watch` until the run has ended or Ctrl-C."""
    console, folder = Console(highlight=False), options.directory
    if not options.watch:
        # In a file or a pipe a line is a line, however long.
        console.print(view(gather(folder)), soft_wrap=not console.is_terminal)
        return 0
    if not console.is_terminal:
        raise ValueError("--watch needs a terminal; without it, status is printed once")
    try:
        with Live(view(gather(folder)), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while not (status := gather(folder)).finished:
                live.update(view(status), refresh=True)
                time.sleep(options.every)
            live.update(view(status), refresh=True)
    except KeyboardInterrupt:
        pass
    return 0


def view(status: Status, now: float | None = None) -> RenderableType:
    """Everything that `status` tells, to be printed by rich."""
    return Group(*_parts(status, time.time() if now is None else now))


def _parts(status: Status, now: float) -> Iterator[RenderableType]:
    yield Text.assemble((str(status.folder.resolve()), "bold"), ": ", status.state)
    if status.generation is None:
        yield from _jobs(status, now)
        return
    of = f" of {status.generations}" if status.generations and not status.finished else ""
    done = f"{status.generations} generations" if status.finished else f"generation {status.generation + 1}{of}"
    yield Text(
        f"{done}; {status.proposed} networks proposed, {status.trained} trained, {status.failed} failed, "
        f"{status.infeasible} over budget" + (f", {status.dropped} left out early" if status.dropped else "")
    )
    if not status.finished:
        left = "" if status.left_s is None else f"{duration(status.left_s)} "
        yield Text(f"time left: {left}{status.left_by}")
    if status.stages:
        yield _table(
            ["this generation", "done", "failed", "running", "waiting"],
            [[stage.name, stage.done, stage.failed, stage.running, stage.waiting] for stage in status.stages],
        )
    yield from _jobs(status, now)
    yield from _found(status)
    yield from _devices(status, now)
    for reason, count in sorted(status.reasons.items(), key=lambda item: -item[1])[:SHOWN]:
        yield Text(f"failed, {count} times: {reason}" if count > 1 else f"failed: {reason}", style="red")


def _jobs(status: Status, now: float) -> Iterator[RenderableType]:
    for queued, label in ((False, "running"), (True, "in the cluster's queue")):
        jobs = [job for job in status.jobs if job.queued is queued]
        if jobs:
            more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
            yield Text(f"{label}: " + ", ".join(_told(job, now) for job in jobs[:SHOWN]) + more, style="green")


def _told(job: Job, now: float) -> str:
    return f"{job.stage} {job.of} ({duration(now - job.since)})".replace("  ", " ")


def _found(status: Status) -> Iterator[RenderableType]:
    if status.hypervolume:
        top = max(status.hypervolume) or 1.0
        sparks = "".join(SPARKS[min(7, int(value / top * 7.999))] for value in status.hypervolume)
        last = ", ".join(f"{value:.4f}" for value in status.hypervolume[-SHOWN:])
        yield Text(f"hypervolume by generation: {sparks} {last}")
    if not status.front:
        return
    devices = list(status.front[0]["latency_ms"])
    rows = [
        [entry["name"], entry["family"], f"{entry['parameters']:,}", f"{entry['val_rmse']:.4f}",
         *(f"{entry['latency_ms'][device]:.4g}" for device in devices)]
        for entry in status.front[:SHOWN]
    ]  # fmt: skip
    heads = [f"front so far, {len(status.front)}", "family", "parameters", "val RMSE", *(f"ms on {d}" for d in devices)]
    yield _table(heads, rows)


def _devices(status: Status, now: float) -> Iterator[RenderableType]:
    for device in status.devices:
        said = [device.about, device.doing or "idle"]
        if device.measured_at is not None:
            said.append(f"measured {duration(now - device.measured_at)} ago")
        if device.celsius is not None:
            said.append(f"{device.celsius:.0f} °C")
        if device.flags:
            said.append(f"doubtful: {', '.join(device.flags)}")
        yield Text(f"device {device.name}: " + "; ".join(said))


def _table(heads: list[str], rows: list[list[object]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, head in enumerate(heads):
        left = number == 0 or head == "family"
        table.add_column(head, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    return table
