"""Exporting many untrained networks at once, for screening."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from edgeloop.records import failed, write_json


def draft_all(
    architectures: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    processes: int,
    progress: Callable[..., Iterator[str | None]] | None = None,
) -> dict[str, str]:
    """Export each of `architectures` (by id) to ``folder/{id}.onnx`` with untrained weights.

    One that cannot be exported leaves ``folder/{id}.failed.json``; the reasons are returned by id. `progress` is
    `edgeloop.progress.progress`, or None for silence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not architectures:
        return {}
    # The exporter takes seconds to warm up in a process, so no more processes than networks to share that cost.
    # Forked before PyTorch is imported: a spawned process would run the caller's script again.
    workers = min(processes, -(-len(architectures) // 2))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        found = pool.map(partial(_draft, folder), *zip(*architectures.items(), strict=True))
        if progress is not None:
            found = progress(found, total=len(architectures), label="draft", unit="network")
        reasons = dict(zip(architectures, found, strict=True))
    return {name: reason for name, reason in reasons.items() if reason}


def _draft(folder: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    import torch

    from edgeloop.export import export_untrained

    torch.set_num_threads(1)
    try:
        record = export_untrained(entry["architecture"], folder / f"{name}.onnx", precision=entry["precision"])
    except (RuntimeError, ValueError, MemoryError) as error:  # the exporter's own errors are RuntimeErrors
        record = failed(f"cannot be exported: {str(error).splitlines()[0]}")
    if record["status"] == "failed":
        write_json(folder / f"{name}.failed.json", failed(record["reason"]))
        return record["reason"]
    return None
