"""A folder in which an archived search goes on: all that was done is there, so that nothing of it is done again."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from edgeloop.archive import ARCHIVE, CONFIG, PATCH, SOURCE, ArchiveError, contents, data, sources, verify
from edgeloop.archive.container import Reader
from edgeloop.populations import FULL, Populations
from edgeloop.records import read_json


def extract(archive: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the files of a sound archive into the new folder `folder`; its archive.json and its configuration."""
    verify.require_sound(archive)
    if folder.exists() and any(folder.iterdir()):
        raise ArchiveError(f"{folder} is not empty: name a new folder")
    with Reader(archive) as opened:
        opened.extract(folder)
    if (folder / PATCH).exists():
        sources.apply(folder / PATCH, folder / SOURCE)
    return read_json(folder / ARCHIVE), yaml.safe_load((folder / CONFIG).read_text())


def unpack(
    archive: Path, folder: Path, video: Sequence[Path] = (), progress: Callable[..., Any] | None = None
) -> list[str]:
    """Unpack a sound archive into the new folder `folder`, with its data and all models; what there is to say.

    video: see `data.restore`.
    """
    about, config = extract(archive, folder)
    if video:
        config["dataset"]["path"] = [str(path.resolve()) for path in video]
        (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    data.restore(folder, config, video, progress)
    said = [*_draw_untrained(folder, about), *_lacking(folder)]
    _restore_packs(folder)
    _date(folder)
    return said


def _date(folder: Path) -> None:
    """Give all files of the run the same time, so that none is older than what it was made from; the sources an earlier
    one, because Snakemake runs a job again whose script is as young as its output."""
    now = time.time()
    for path in folder.rglob("*"):
        age_s = 3600 if path.is_relative_to(folder / SOURCE) else 0
        os.utime(path, (now - age_s, now - age_s))


def _draw_untrained(folder: Path, about: dict[str, Any]) -> Iterator[str]:
    """Weights and models of networks that are measured for latency only: drawn from their ids, as they were."""
    from edgeloop import export, training
    from edgeloop.models import registry

    for name in contents.candidates(folder):
        place = folder / "results/candidates" / name
        record = read_json(place / "train.json")
        if record.get("trained", True) or record["status"] == "failed" or (place / "model.onnx").exists():
            continue
        genotype, exported = read_json(place / "genotype.json")["genotype"], read_json(place / "export.json")
        training.initialise(genotype, weights_path=place / "weights.pt")
        architecture, precision = genotype["architecture"], genotype["precision"]
        model, frames = training.load(architecture, place / "weights.pt"), registry.input_frames(architecture)
        made = export.write(model, place / "model.onnx", frames=frames, precision=precision)
        if made["model_sha256"] != exported.get("model_sha256"):
            yield f"{name}: its model is exported to another file here than then; what was measured is kept"


def _lacking(folder: Path) -> Iterator[str]:
    places = {name: folder / "results/candidates" / name for name in contents.candidates(folder)}
    lacking = [name for name, place in places.items() if not (place / "weights.pt").exists()]
    if lacking:
        yield (
            f"{len(lacking)} candidates came without their weights (archive.models: front): a search that goes on "
            f"trains them again: {', '.join(lacking)}"
        )


def _restore_packs(folder: Path) -> None:
    """What the jobs of packs had made: the same files as the candidates', under other names."""
    populations = Populations(folder / "results/generations")
    for place in sorted((folder / "results/candidates").glob("*")):
        name = place.name
        made = [(FULL, "train", "train.json", "weights.pt"), (FULL, "export", "export.json", "model.onnx")]
        made += [(r, f"rung.{r}", f"rung.{r}.json", f"rung.{r}.pt") for r in populations.rungs(name)]
        for rung, stage, record, content in made:
            if not (pack := populations.pack(name, rung)):
                continue
            target = folder / "results/packs" / pack / stage
            target.mkdir(parents=True, exist_ok=True)
            for file in (record, content):
                if (place / file).exists():
                    shutil.copyfile(place / file, target / f"{name}{Path(file).suffix}")


def next_lines(folder: Path) -> str:
    """How to go on in an unpacked folder."""
    settings = read_json(folder / ARCHIVE)["search"]
    longer = json.dumps({"max_generations": settings["max_generations"] + 1}).replace('"', "")
    return (
        f"snakemake --cores 2 --snakefile {folder / SOURCE / 'Snakefile'} --directory {folder} --configfile "
        f"{folder / CONFIG} --config 'search={longer}'"
    )
