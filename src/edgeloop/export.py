"""From a PyTorch network to one self-contained ONNX file, compared with it on real clips."""

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

from edgeloop.compute import deterministic, seed_of
from edgeloop.models import registry
from edgeloop.models.preprocess import CLIP_PIXELS
from edgeloop.records import atomic, digest, failed, ok

TOLERANCE = 1e-4
"""Largest accepted difference between PyTorch and onnxruntime, in units of the targets, for fp32."""
# PyTorch builds its table of operators anew for every network: half of the time that exporting a small one takes.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))

INPUT, OUTPUT, BATCH = "clip", "targets", "batch"
COMPARED_AT_ONCE = 16


def export(model: nn.Module, path: str | Path, *, frames: int, clips: np.ndarray) -> dict[str, Any]:
    """Write `model` to `path` as ONNX and return the export record.

    The file has one input `clip`, uint8 [batch, frames, 41, 41], and one output `targets`, float32 [batch, 2];
    `batch` is symbolic. It is checked by onnx.checker and run by onnxruntime on `clips`, uint8 [n, T, 41, 41],
    of which the centre `frames` are taken. A difference from PyTorch above TOLERANCE, an operator that ONNX
    lacks, and a file that the checker or onnxruntime refuses give a failed record. `max_abs_difference` is
    that over all outputs; `outputs` are PyTorch's.
    """
    if clips.dtype != np.uint8 or clips.ndim != 4 or clips.shape[1] < frames or not len(clips):
        raise ValueError(
            f"the clips to compare on are {clips.dtype} {list(clips.shape)}: "
            f"expected uint8 [n, at least {frames}, {CLIP_PIXELS}, {CLIP_PIXELS}] with n of at least 1"
        )
    first = (clips.shape[1] - frames) // 2
    clips = np.ascontiguousarray(clips[:, first : first + frames])
    start = time.perf_counter()
    try:
        about = write(model, path, frames=frames)
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        return failed(f"the network cannot be exported to ONNX: {_first_line(error)}")
    export_s = round(time.perf_counter() - start, 3)
    expected = _by_torch(model, clips)
    try:
        found = _by_onnxruntime(Path(path), clips)
    except _ORT_ERRORS as error:
        return failed(f"onnxruntime refuses the exported network: {_first_line(error)}", **about)
    difference = float(np.abs(found - expected).max())
    about |= {
        "max_abs_difference": difference if np.isfinite(difference) else None,
        "tolerance": TOLERANCE,
        "compared_clips": len(clips),
        "export_s": export_s,
        "outputs": expected.tolist() if np.isfinite(expected).all() else None,
    }
    # Written so that NaN fails.
    if not difference <= TOLERANCE:
        reason = f"onnxruntime and PyTorch differ by {difference:.3g} on {len(clips)} clips: at most {TOLERANCE:g}"
        return failed(reason, **about)
    return ok(**about)


def export_untrained(architecture: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Write the network of `architecture` with seeded weights: the graph, and so the latency, of a trained one.

    The record has what `export` gives but for the comparison. The same architecture gives the same file.
    """
    start = time.perf_counter()
    with deterministic(seed_of(digest(dict(architecture)), 0), 1, torch.device("cpu")):
        model = registry.build(architecture)
    try:
        about = write(model, path, frames=registry.input_frames(architecture))
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        return failed(f"the network cannot be exported to ONNX: {_first_line(error)}")
    return ok(**about, export_s=round(time.perf_counter() - start, 3))


def write(model: nn.Module, path: str | Path, *, frames: int) -> dict[str, Any]:
    """Export, check and write under a temporary name first; what the file is: hash, size, opset, operators."""
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


_ORT_ERRORS = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


@torch.no_grad()
def _by_torch(model: nn.Module, clips: np.ndarray) -> np.ndarray:
    model = model.cpu().eval()
    parts = [model(torch.from_numpy(part)).numpy() for part in _parts(clips)]
    return np.concatenate(parts)


def _by_onnxruntime(path: Path, clips: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in _parts(clips)])


def _parts(clips: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(clips), COMPARED_AT_ONCE):
        yield clips[start : start + COMPARED_AT_ONCE]


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
