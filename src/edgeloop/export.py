"""From a PyTorch network to one self-contained ONNX file, compared with it on real clips, in any precision."""

import functools
import hashlib
import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read by onnxruntime as it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgeloop import conversion, parity, slices, training
from edgeloop.compute import deterministic, seed_of
from edgeloop.data.cache import Split, open_split, window
from edgeloop.models import registry
from edgeloop.models.preprocess import CLIP_PIXELS
from edgeloop.records import Genotype, atomic, digest, failed, ok
from edgeloop.rmse import rmse

TOLERANCE = 1e-4
"""Largest accepted difference between PyTorch and onnxruntime, in units of the targets, for fp32."""
# PyTorch builds its table of operators anew for every network: half of the time that exporting a small one takes.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))

INPUT, OUTPUT, BATCH = "clip", "targets", "batch"
EXACT_INT8 = ("session.x64quantprecision", "1")
"""For onnxruntime, as on devices (`edge/runner.py`): on x86 without VNNI sums of 8-bit products otherwise saturate."""


def export_candidate(
    genotype: Genotype,
    train: Mapping[str, Any],
    weights_path: str | Path,
    path: str | Path,
    *,
    parity_clips: np.ndarray,
    data: str | Path,
) -> dict[str, Any]:
    """Export the candidate `genotype`, of which `train` is the record and `weights_path` has the weights, to `path`.

    As `export`, which has the details: `parity_clips` are those to compare on, `data` is the folder of the crop cache,
    whose training and validation splits are read where the precision is not fp32.
    """
    architecture, precision = genotype["architecture"], genotype["precision"]
    frames, calibration, validation = registry.input_frames(architecture), None, None
    if precision != "fp32" and train.get("trained", True):
        calibration = conversion.calibration_clips(open_split(data, "train"), frames, train["macs"])
        validation = open_split(data, "validation")
    return export(
        training.load(architecture, weights_path),
        path,
        frames=frames,
        clips=parity_clips[: parity.clip_count(train["macs"])],
        precision=precision,
        calibration=calibration,
        validation=validation,
    )


def export(
    model: nn.Module,
    path: str | Path,
    *,
    frames: int,
    clips: np.ndarray,
    precision: str = "fp32",
    calibration: np.ndarray | None = None,
    validation: Split | None = None,
) -> dict[str, Any]:
    """Write `model` to `path` as ONNX and return the export record.

    The file has one input `clip`, uint8 [batch, frames, 41, 41], and one output `targets`, float32 [batch, 2];
    `batch` is symbolic. It is checked by onnx.checker and run by onnxruntime on `clips`, uint8 [n, T, 41, 41],
    of which the centre `frames` are taken. A difference from PyTorch above TOLERANCE, an operator that ONNX
    lacks, and a file that the checker or onnxruntime refuses give a failed record. `max_abs_difference` is
    that over all outputs; `outputs` are PyTorch's.

    All this is of the network in fp32. With another `precision` it is then converted, `calibration` being clips for
    int8 (see `conversion.convert`; noise by default). `outputs` are then those of the converted file by onnxruntime,
    and `outputs_pytorch` stand beside them; by how much they differ is told (`converted_max_abs_difference`), and is no
    failure. The errors of the converted file on the centre windows of the whole of `validation`, if given, are in the
    record under the names that they have in a training record.
    """
    if clips.dtype != np.uint8 or clips.ndim != 4 or clips.shape[1] < frames or not len(clips):
        raise ValueError(
            f"the clips to compare on are {clips.dtype} {list(clips.shape)}: "
            f"expected uint8 [n, at least {frames}, {CLIP_PIXELS}, {CLIP_PIXELS}] with n of at least 1"
        )
    clips = window(clips, frames)
    start = time.perf_counter()
    try:
        graph = graph_of(model, frames=frames)
        about = save(graph, path)
    except _EXPORT_ERRORS as error:
        return failed(f"the network cannot be exported to ONNX: {_first_line(error)}")
    export_s = time.perf_counter() - start
    expected = _by_torch(model, clips)
    try:
        found = run(path, clips)
    except _ORT_ERRORS as error:
        return failed(f"onnxruntime refuses the exported network: {_first_line(error)}", **about)
    difference = float(np.abs(found - expected).max())
    about |= {
        "max_abs_difference": difference if np.isfinite(difference) else None,
        "tolerance": TOLERANCE,
        "compared_clips": len(clips),
        "export_s": round(export_s, 3),
        "outputs": _listed(expected),
    }
    # Written so that NaN fails.
    if not difference <= TOLERANCE:
        reason = f"onnxruntime and PyTorch differ by {difference:.3g} on {len(clips)} clips: at most {TOLERANCE:g}"
        return failed(reason, **about)
    if precision == "fp32":
        return ok(**about)
    start = time.perf_counter()
    try:
        about |= save(conversion.convert(graph, precision, calibration), path)
        export_s += time.perf_counter() - start
        found = run(path, clips)
        errors = {} if validation is None else _errors(path, validation, frames)
    except (conversion.ConversionError, onnx.checker.ValidationError, *_ORT_ERRORS) as error:
        Path(path).unlink()  # what lies there may still be the network in fp32
        return failed(f"the network cannot be had in {precision}: {_first_line(error)}")
    about |= {"precision": precision, "outputs": _listed(found), "outputs_pytorch": _listed(expected)}
    about |= {"export_s": round(export_s, 3)}
    if not np.isfinite([*found.flat, *errors.values()]).all():
        return failed(f"the network gives values in {precision} that are not finite", **about)
    return ok(**about, converted_max_abs_difference=float(np.abs(found - expected).max()), **errors)


def export_untrained(architecture: Mapping[str, Any], path: str | Path, *, precision: str = "fp32") -> dict[str, Any]:
    """Write the network of `architecture` with seeded weights: the graph, and so the latency, of a trained one.

    The record has what `export` gives but for the comparison. The same architecture gives the same file.
    """
    start = time.perf_counter()
    with deterministic(seed_of(digest(dict(architecture)), 0), 1, torch.device("cpu")):
        model = registry.build(architecture)
        if precision != "fp32":
            # Fresh biases are all alike, so that layers share them in the file: a converter finds another graph then.
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
    try:
        about = write(model, path, frames=registry.input_frames(architecture), precision=precision)
    except _EXPORT_ERRORS as error:
        return failed(f"the network cannot be exported to ONNX: {_first_line(error)}")
    except conversion.ConversionError as error:
        return failed(f"the network cannot be had in {precision}: {_first_line(error)}")
    return ok(**about, export_s=round(time.perf_counter() - start, 3))


def write(
    model: nn.Module, path: str | Path, *, frames: int, precision: str = "fp32", calibration: np.ndarray | None = None
) -> dict[str, Any]:
    """Export, convert, check and write to `path`; what the file is: hash, size, opset, operators."""
    graph = graph_of(model, frames=frames)
    return save(graph if precision == "fp32" else conversion.convert(graph, precision, calibration), path)


def graph_of(model: nn.Module, *, frames: int) -> onnx.ModelProto:
    """The network in fp32 as ONNX; the same network gives the same bytes."""
    model = model.cpu().eval()
    # Two clips, as a batch of one would be taken for a constant.
    example = torch.zeros((2, frames, CLIP_PIXELS, CLIP_PIXELS), dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    graph = program.model_proto
    _forget_places(graph.graph)
    slices.merge(graph.graph)
    return graph


def save(graph: onnx.ModelProto, path: str | Path) -> dict[str, Any]:
    """Check `graph` and write it under a temporary name first; what the file is: hash, size, opset, operators."""
    with atomic(path) as temporary:
        onnx.save_model(graph, temporary, save_as_external_data=False)
        onnx.checker.check_model(str(temporary), full_check=True)
        content = temporary.read_bytes()
    operators = Counter(node.op_type for node in graph.graph.node)
    return {
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "opset": next(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")),
        "operators": dict(sorted(operators.items())),
    }


def _forget_places(graph: onnx.GraphProto) -> None:
    """Remove the exporter's notes on each node: stack traces, with the paths of the machine that exported."""
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_places(inner)


_EXPORT_ERRORS = (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError)
_ORT_ERRORS = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


@torch.no_grad()
def _by_torch(model: nn.Module, clips: np.ndarray) -> np.ndarray:
    model = model.cpu().eval()
    parts = [model(torch.from_numpy(part)).numpy() for part in conversion.parts(clips)]
    return np.concatenate(parts)


def run(path: str | Path, clips: np.ndarray) -> np.ndarray:
    """The outputs, float32 [n, 2], of the ONNX file `path` for `clips`, uint8 [n, frames of the network, 41, 41]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry(*EXACT_INT8)
    options.log_severity_level = 3  # what it cannot fold into a constant in fp16 is no news
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [session.run([OUTPUT], {INPUT: part})[0] for part in conversion.parts(clips)]
    return np.concatenate(outputs) if outputs else np.empty((0, 2), np.float32)


def _errors(path: str | Path, validation: Split, frames: int) -> dict[str, float]:
    found = run(path, window(validation.clips, frames))
    return {f"val_{name}": value for name, value in rmse(found, np.asarray(validation.targets)).items()}


def _listed(outputs: np.ndarray) -> list[list[float]] | None:
    return outputs.tolist() if np.isfinite(outputs).all() else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says of packages that we do not need and of itself; keep all other warnings."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def needed(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger.addFilter(needed)
    try:
        with warnings.catch_warnings():
            # PyTorch's own deprecations within its exporter; nothing that a user could act on.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*(LeafSpec|_check_is_size).*")
            # nn.GRU rebuilds its list of weights as it is traced.
            warnings.filterwarnings(
                "ignore", message=".*_flat_weights.* assigned during export.*", category=UserWarning
            )
            yield
    finally:
        logger.removeFilter(needed)
