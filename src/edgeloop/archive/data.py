"""The data of an archived run, made again. An archive has no video and no clips, but the fingerprint of the clips."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop import config as configuration
from edgeloop.archive import ArchiveError
from edgeloop.data.prepare import prepare
from edgeloop.data.simulate import write_configured
from edgeloop.records import read_json

CACHE = Path("results/data")


def restore(run: Path, config: Mapping[str, Any], video: Sequence[Path], progress: Callable[..., Any] | None) -> None:
    """Make video and clips of the archived run that was unpacked to the folder `run`.

    video: HDF5 files, or folders of them, that the run was made from; simulated ones are simulated again. Raises
    ArchiveError where they are missing or are not those of the run, and then leaves no clips.
    """
    dataset, archived = config["dataset"], read_json(run / CACHE / "cache.json")
    if dataset["source"] == "simulate":
        files = _simulate(run / "results/raw", dataset["simulate"], progress)
    else:
        files = [file for path in video for file in (sorted(path.glob("*.h*5")) if path.is_dir() else [path])]
        if not files:
            named = ", ".join(file["name"] for file in archived["files"])
            raise ArchiveError(f"the run was made from video that is not in its archive ({named}): say --data FOLDER")
    apart = run / "results/.data"
    try:
        made = prepare(
            files,
            apart,
            source=dataset["source"],
            lit_threshold=dataset["lit_threshold"],
            clips_per_line=dataset["clips_per_line"],
            split={part: dataset["split"][part] for part in ("validation", "test")},
            seed=dataset["split"]["seed"],
            progress=progress,
        )
        if made["fingerprint"] != archived["fingerprint"]:
            raise ArchiveError(
                f"the clips of {', '.join(file.name for file in files)} are not those that the run was made from: "
                f"fingerprint {made['fingerprint'][:12]}, expected {archived['fingerprint'][:12]}"
            )
        for file in apart.glob("*.npy"):
            file.rename(run / CACHE / file.name)
    finally:
        shutil.rmtree(apart, ignore_errors=True)


def _simulate(folder: Path, settings: Mapping[str, Any], progress: Callable[..., Any] | None) -> list[Path]:
    files = []
    for name in configuration.object_names(settings):
        files.append(folder / f"{name}.h5")
        write_configured(files[-1], name, settings, progress=progress)
    return files
