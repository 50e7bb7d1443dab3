"""What is deployed of a finalist: one zip with the network, its card, a program that uses it, and checksums."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop import bundle_card
from edgeloop.data.cache import TARGET_SCALE
from edgeloop.records import atomic

PREDICT = Path(__file__).with_name("bundle_predict.py")
SELF_TEST_CLIPS = 4
CHECKSUMS = "SHA256SUMS"


def write(
    path: str | Path,
    card: Mapping[str, Any],
    *,
    model: bytes,
    clips: np.ndarray,
    outputs: np.ndarray,
    tolerance: float,
) -> None:
    """Write the bundle `path`; equal arguments give equal bytes.

    card: of `bundle_card.build`. clips: uint8 [n, T, 41, 41], of which the first few become the self-test, with the
    export record's `outputs` [n, 2] for them, in [900 mm/s, 215 W]; on the device they may differ by `tolerance`.
    """
    scale = np.asarray(TARGET_SCALE)
    count = min(SELF_TEST_CLIPS, len(outputs))
    files = {
        "model.onnx": model,
        "model-card.json": (json.dumps(card, indent=1, allow_nan=False) + "\n").encode(),
        "model-card.md": bundle_card.as_text(card).encode(),
        "predict.py": PREDICT.read_bytes(),
        "self-test.npz": _npz(
            clips=np.asarray(clips[:count]),
            outputs=np.asarray(outputs[:count], float) * scale,
            allowed=tolerance * scale,
        ),
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    with atomic(path) as temporary:
        temporary.write_bytes(zipped({**files, CHECKSUMS: sums.encode()}))


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files` by name: the same files give the same bytes, whenever and wherever."""
    buffer = io.BytesIO()
    # Stored, not deflated: what deflate makes of the same bytes depends on the version of zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    """As np.savez, which would write down the time."""
    files = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
        files[f"{name}.npy"] = buffer.getvalue()
    return zipped(files)
