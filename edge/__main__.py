"""`python -m edge`: enrol a device, measure ONNX files on it, deploy a bundle to it."""

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import enrolment, install
from .deploy import deploy
from .device import Device
from .errors import AuthenticationFailed, DeviceUnreachable, EdgeError, HostKeyRejected
from .session import Job, Timing, connect

EXIT_FAILED_MODEL = 1
EXIT_ERROR = 2
LOCAL = "local"
COLUMNS = (
    ("p5 ms", "latency_p5_ms"),
    ("p50 ms", "latency_p50_ms"),
    ("p90 ms", "latency_p90_ms"),
    ("p99 ms", "latency_p99_ms"),
    ("ratio", "ratio"),
    ("peak MB", "peak_memory_mb"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all went well, 1 when a model failed, 2 when the device or the call did (one line on
    stderr)."""
    options = _parser().parse_args(arguments)
    try:
        device = _device(options.device, options.config)
        return options.command(options, device)
    except (EdgeError, ValueError, OSError) as error:
        print(f"edge: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("edge: interrupted", file=sys.stderr)
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", default=LOCAL, help="a device of the configuration, or `local`: this machine")
    common.add_argument("--config", type=Path, help="YAML with `devices: {NAME: {...}}` [config/config.yaml]")
    common.add_argument("--json", type=Path, metavar="OUT", help="write the records there, too")

    measure = commands.add_parser("measure", parents=[common], help="time ONNX files on the device")
    measure.add_argument("models", nargs="+", type=Path, metavar="model.onnx")
    measure.add_argument("--runs", type=int, default=Timing.min_runs, help="timed runs at least [%(default)s]")
    measure.add_argument(
        "--max-s", type=float, default=Timing.max_s, help="fewer runs after so many seconds [%(default)s]"
    )
    measure.add_argument("--batch-size", type=int, default=1, help="for a symbolic first dimension [%(default)s]")
    measure.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT=1,16,41,41",
        help="shape of an input; once for each input",
    )
    measure.add_argument("--clips", type=Path, help=".npy, uint8 [n, T, H, W]: the records get the model's outputs")
    measure.add_argument("--enrolment", type=Path, help="JSON of `enroll`; without, the device is enrolled first")
    measure.set_defaults(command=_measure)

    enrol = commands.add_parser("enroll", parents=[common], help="check the device and time the reference at rest")
    enrol.add_argument(
        "--install", action="store_true", help="first make a virtual environment there, out of wheels sent from here"
    )
    enrol.add_argument(
        "--packages",
        nargs="+",
        default=list(install.PACKAGES),
        metavar="PACKAGE",
        help="what --install installs: names, with versions if you like, or wheel files [%(default)s]",
    )
    enrol.set_defaults(command=_enrol)

    bundled = commands.add_parser("deploy", parents=[common], help="send a bundle to the device, and test it there")
    bundled.add_argument("bundle", type=Path, metavar="bundle.zip")
    bundled.add_argument("--folder", help="where to put it on the device [~/edgeloop-CANDIDATE]")
    bundled.set_defaults(command=_deploy)
    return parser


def _device(name: str, config: Path | None) -> Device:
    """The device `name` of the configuration; "local" needs none."""
    path = config or Path("config/config.yaml")
    if name == LOCAL and (config is None or not path.exists()):
        return Device(LOCAL)
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no configuration {path}. Name one with --config, or use --device local.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    devices = document.get("devices") if isinstance(document, dict) else None
    if not isinstance(devices, dict):
        raise ValueError(
            f"{path} has no mapping `devices`. Expected `devices: {{NAME: {{transport: ssh, host: ...}}}}`."
        )
    if name in devices:
        return Device.from_config(name, devices[name])
    if name == LOCAL:
        return Device(LOCAL)
    raise ValueError(f"{path} has no device {name!r}. It has {', '.join(map(repr, devices)) or 'none'}.")


def _measure(options: argparse.Namespace, device: Device) -> int:
    shapes = dict(_shape(text) for text in options.shape)
    timing = Timing(min_runs=options.runs, max_s=options.max_s, batch_size=options.batch_size)
    for path in [*options.models, *filter(None, [options.clips, options.enrolment])]:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
    jobs = [Job(model, options.clips, shapes) for model in options.models]
    record = json.loads(options.enrolment.read_text()) if options.enrolment else None
    with connect(device) as session:
        if record is None:
            record = session.enrol()
            _say_messages(record)
        records = session.measure(jobs, timing, enrolment=record)
    print(table(records))
    if options.json:
        _write_json(options.json, {"enrolment": record, "records": records})
    return 0 if all(r["status"] == "ok" for r in records) else EXIT_FAILED_MODEL


def _enrol(options: argparse.Namespace, device: Device) -> int:
    if options.install:
        installed = install.install(device, options.packages)
        if installed != device:
            print(f"installed: from now on, the entry of {device.name!r} needs the line `python: {installed.python}`")
        device = installed
    try:
        with connect(device) as session:
            checks = enrolment.examine(session)
            print(_checklist(checks))
            enrolment.refuse(device, checks)
            record = session.enrol()
    except (DeviceUnreachable, HostKeyRejected, AuthenticationFailed) as error:
        print(_checklist(enrolment.check_way(error)))
        raise
    for key, value in record["fingerprint"].items():
        print(f"{key:<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    reference = record["reference"]
    print(f"{'reference':<12}", ", ".join(f"{q} {reference[q + '_ms']:.3f} ms" for q in ("p5", "p50", "p99")))
    _say_messages(record, {check.mend for check in checks})
    if options.json:
        _write_json(options.json, record)
    return 0


def _deploy(options: argparse.Namespace, device: Device) -> int:
    done = deploy(device, options.bundle, options.folder)
    print(f"{done.candidate}: {done.sent_bytes:,} bytes sent to {device.name} ({device.address}), checksums good")
    print(done.said)
    print(f"deployed to {done.folder}" if done.passed else f"not deployed: {done.folder} is as it was")
    if options.json:
        _write_json(options.json, asdict(done))
    return 0 if done.passed else EXIT_FAILED_MODEL


def _checklist(checks: Sequence[enrolment.Check]) -> str:
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8} {check.name:<12} {check.found}")
        lines += [f"{'':<8} {'':<12} -> {check.mend}"] if check.mend else []
    return "\n".join(lines)


def _say_messages(record: dict[str, Any], said: Collection[str] = ()) -> None:
    for message in record["messages"]:
        if message in said:
            continue
        print(f"note: {message}", file=sys.stderr)


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, dimensions = text.rpartition("=")
    try:
        shape = [int(d) for d in dimensions.split(",")]
    except ValueError:
        shape = []
    if not name or not shape or min(shape) < 1:
        raise ValueError(
            f"--shape {text!r}: expected INPUT=N,N,... with whole numbers above 0, for example clip=1,16,41,41"
        )
    return name, shape


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records as aligned text, one line each."""
    rows = [["model", *(title for title, _ in COLUMNS), "flags"]]
    for record in records:
        if record["status"] == "ok":
            figures = ["-" if record[key] is None else f"{record[key]:.4g}" for _, key in COLUMNS]
            rows.append([record["model"], *figures, " ".join(record["flags"]) or "-"])
        else:
            rows.append([record["model"], *["-"] * len(COLUMNS), "failed: " + record["reason"]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) + 1)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:], strict=True)), row[-1]]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _write_json(path: Path, value: Any) -> None:
    """Under a temporary name first: nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
