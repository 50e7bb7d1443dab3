"""What a run knows of its devices from their records: whether they can tell what is asked of them, and what they are
still owed. Imports nothing big: every start of Snakemake reads it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.records import read_json


class DeviceCannotTell(ValueError):
    """A device has a budget for a figure that it does not give."""


def check_enrolment(name: str, entry: Mapping[str, Any], enrolment: Mapping[str, Any]) -> None:
    """Raise DeviceCannotTell when the device's `entry` in the configuration has a budget of energy and its enrolment
    says that it tells none."""
    if entry.get("budget_energy_mj") is not None and enrolment.get("energy_source") is None:
        raise DeviceCannotTell(
            f"device {name!r} has 'budget_energy_mj', but tells no energy: it has no INA3221 monitor, and no RAPL "
            "counter that its user may read. Remove the budget (and energy_mj_per_inference from 'search.objectives'), "
            f"or let the user read the counter (docs/measuring.md) and remove results/devices/{name}.json"
        )


def check_enrolled(devices: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """`check_enrolment` for those of `devices` that have been enrolled, in `folder`: a budget may have come later."""
    for name, entry in devices.items():
        if (file := folder / f"{name}.json").exists():
            check_enrolment(name, entry, read_json(file))


def owed(results: Path, devices: Sequence[str], screened_on: Sequence[str]) -> list[str]:
    """What each of `devices` has yet to measure of what is there to be measured under `results`, a line for each;
    `screened_on` are those on which proposals are screened."""
    return [
        f"device {device!r} is still owed: {', '.join(missing)}"
        for device in devices
        if (missing := list(_missing(results, device, device in screened_on)))
    ]


def _missing(results: Path, device: str, screens: bool) -> Iterator[str]:
    if not (results / "devices" / f"{device}.json").exists():
        yield "its enrolment"
    for proposals in sorted(results.glob("generations/*/proposals.json")) if screens else ():
        if not (proposals.parent / f"screening.{device}.json").exists() and read_json(proposals)["to_screen"]:
            yield f"the screening of generation {proposals.parent.name}"
    models = sorted(results.glob("candidates/*/model.onnx"))
    unmeasured = [file.parent.name for file in models if not (file.parent / f"measure.{device}.json").exists()]
    if unmeasured:
        yield f"the measurement of {len(unmeasured)} networks ({', '.join(unmeasured)})"
