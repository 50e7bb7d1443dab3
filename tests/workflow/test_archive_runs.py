"""What a user may rely on when a run is archived, and of the archive alone."""

import getpass
import hashlib
import json
import random
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from searches import ROOT, Run

from edgeloop import config as configuration
from edgeloop import yamlfile
from edgeloop.archive import ArchiveError, container, data, pack, privacy, replay, reproduce, unpack, verify
from edgeloop.records import read_json, write_json
from edgeloop.search import warm_start

pytestmark = pytest.mark.workflow
NAME = "tiny-space-gp-ehvi-seed1.zip"
KEY = b"-----BEGIN OPENSSH PRIVATE " + b"KEY-----"
"""In two parts, so that these sources can be archived."""


@pytest.fixture(scope="module")
def archived(finished, tmp_path_factory):
    """The finished search in a folder of its own, archived."""
    folder = tmp_path_factory.mktemp("archived")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    run = Run(folder, finished.source)
    run.output = run.snakemake("archive")
    return run


@pytest.fixture(scope="module")
def archive(archived):
    return archived.path(f"archive/{NAME}")


@pytest.fixture(scope="module")
def outside(archive, tmp_path_factory):
    """A folder that holds nothing but the archive."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(archive, folder / "run.zip")
    return folder


@pytest.fixture
def opened(archive, tmp_path):
    """The archive's files in a new folder, with archive.json and the configuration."""
    return tmp_path / "opened", *unpack.extract(archive, tmp_path / "opened")


def command(archived, folder):
    """Something to call `python -m edgeloop` by, in a folder that holds no run."""
    return Run(folder, archived.source).edgeloop


def names(archive):
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def complete(run):
    config = yaml.safe_load(yaml.safe_dump(run.config))
    configuration.complete(config, yamlfile.load(run.source / "workflow/schemas/config.schema.yaml").value)
    return config


def pack_as(run, target, **changes):
    """Archive `run` with another configuration, without Snakemake."""
    space = run.source / run.config["space"]
    return pack.pack(target, run=run.folder, root=run.source, config={**complete(run), **changes}, space=space)


def test_an_archive_holds_sources_configuration_records_and_models(archived, archive):
    found = names(archive)
    assert found >= {
        "ro-crate-metadata.json",
        "archive.json",
        "config.yaml",
        "space.yaml",
        "environment.txt",
        "checksums.sha256",
    }
    assert found >= {"source/Snakefile", "source/envs/requirements.txt", "source/src/edgeloop/training.py"}
    records = {str(file.relative_to(archived.folder)) for file in archived.path("").rglob("*.json")}
    assert records <= found
    trained = [
        folder.name
        for folder in archived.path("candidates").glob("*")
        if "best_epoch" in (folder / "train.json").read_text()
    ]
    assert len(trained) == 5
    assert {f"results/candidates/{name}/{file}" for name in trained for file in ("weights.pt", "model.onnx")} <= found
    assert not [name for name in found if name.endswith((".npy", ".h5"))]


def test_making_it_changes_nothing_and_finds_nothing_to_do_the_second_time(archived):
    assert archived.executed(archived.output) == {"archive": 1}
    assert "Nothing to be done" in archived.snakemake("archive")
    assert "Nothing to be done" in archived.snakemake()


def test_two_archives_of_a_run_are_the_same_byte_for_byte_wherever_the_run_lies(finished, archived, archive, tmp_path):
    again = tmp_path / "another-folder"
    shutil.copytree(archived.folder, again)
    (again / "results/archive" / NAME).unlink()
    run = Run(again, finished.source)
    run.snakemake("archive")
    assert run.path(f"archive/{NAME}").read_bytes() == archive.read_bytes()


def test_a_sound_archive_is_told_to_be_sound_in_an_empty_folder(archived, outside):
    assert "run.zip is sound: tiny-space-gp-ehvi-seed1, commit" in command(archived, outside)("verify", "run.zip")


def test_no_byte_of_an_archive_changes_unnoticed(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    damaged = tmp_path / "damaged.zip"
    rng = random.Random(1)
    directory = content.rindex(b"PK\1\2")
    places = {*range(64), *range(directory, len(content)), *(rng.randrange(len(content)) for _ in range(1500))}
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
        damaged.write_bytes(content)
        assert container.seal_problem(damaged), f"byte {place}"
        content[place] = archive.read_bytes()[place]
    damaged.write_bytes(content)
    assert container.seal_problem(damaged) is None


def test_a_damaged_archive_is_told_with_the_damaged_file(archived, archive, outside, tmp_path):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        about = opened.getinfo("results/summary.json")
    content[about.header_offset + 30 + len(about.filename) + about.compress_size // 2] ^= 4
    (tmp_path / "run.zip").write_bytes(content)
    said = command(archived, tmp_path)("verify", "run.zip", code=1)
    assert "not those that were sealed" in said and "results/summary.json" in said
    for words in (["replay", "run.zip"], ["unpack", "run.zip", "new"], ["reproduce", "run.zip", "--candidate", "x"]):
        assert "run.zip is not sound" in command(archived, tmp_path)(*words, code=1)


def test_half_an_archive_and_another_zip_file_are_told(archive, tmp_path):
    half, other = tmp_path / "half.zip", tmp_path / "other.zip"
    half.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with zipfile.ZipFile(other, "w") as made:
        made.writestr("a.txt", "text" * 100)
    for file in (half, other):
        assert "does not end with the seal" in verify.problems(file)[0]
    with pytest.raises(ArchiveError, match="there is no archive"):
        verify.problems(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda files: files.pop("results/summary.json"), "results/summary.json is listed in checksums.sha256"),
        (lambda files: files.update({"more.txt": b"more"}), "more.txt is there, and not listed"),
        (lambda files: files.update({"config.yaml": b"x: 1"}), "config.yaml has another sha256"),
        (lambda files: files.update({"../out.txt": b"out"}), "'../out.txt' leads out of the archive"),
    ],
)  # fmt: skip
def test_an_archive_that_was_put_together_anew_is_told(archive, tmp_path, change, complaint):
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    change(files)
    forged = tmp_path / "forged.zip"
    container.write(forged, [container.Entry(name, lambda text=text: text) for name, text in files.items()])
    assert container.seal_problem(forged) is None
    assert any(complaint in problem for problem in verify.problems(forged))


BROKEN_CRATES = [
    (lambda graph: graph["./"].pop("license"), "the root lacks license"),
    (lambda graph: graph["./"].update(mainEntity={"@id": "config.yaml"}), "its main entity is no workflow"),
    (lambda graph: graph["./"].update(mentions=[]), "it mentions no run of the workflow"),
    (
        lambda graph: graph["./"].update(conformsTo=[]),
        "does not claim the profile https://w3id.org/ro/wfrun/workflow/0.5",
    ),
    (lambda graph: graph.pop("space.yaml"), "space.yaml is there, and not described"),
    (lambda graph: graph["space.yaml"].update(sha256="0"), "space.yaml has another digest than described"),
    (lambda graph: graph["./"].update(datePublished="today"), "datePublished is no date"),
]


@pytest.mark.parametrize(
    ("change", "complaint"), BROKEN_CRATES, ids=[said.split(" https")[0] for _, said in BROKEN_CRATES]
)
def test_a_description_that_is_no_workflow_run_crate_is_told(archive, tmp_path, change, complaint):
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    metadata = json.loads(files["ro-crate-metadata.json"])
    graph = {entity["@id"]: entity for entity in metadata["@graph"]}
    change(graph)
    files["ro-crate-metadata.json"] = json.dumps({**metadata, "@graph": list(graph.values())}).encode()
    lines = files["checksums.sha256"].decode().splitlines()
    digest = hashlib.sha256(files["ro-crate-metadata.json"]).hexdigest()
    lines = [
        f"{digest}  ro-crate-metadata.json" if line.endswith("  ro-crate-metadata.json") else line for line in lines
    ]
    files["checksums.sha256"] = "\n".join([*lines, ""]).encode()
    changed = tmp_path / "changed.zip"
    container.write(changed, [container.Entry(name, lambda text=text: text) for name, text in files.items()])
    assert any(complaint in problem for problem in verify.problems(changed))


def test_what_is_written_besides_the_records_keeps_to_its_schema(archive):
    folder = ROOT / "workflow/schemas"
    schemas = {file.name: yaml.safe_load(file.read_text()) for file in folder.glob("*.yaml")}
    registry = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())
    with zipfile.ZipFile(archive) as opened:
        records = [("archive", opened.read("archive.json")), ("start", opened.read("logs/journal.jsonl"))]
    for kind, text in records:
        schema = {"$ref": f"records.schema.yaml#/$defs/{kind}"}
        jsonschema.Draft202012Validator(schema, registry=registry).validate(json.loads(text))


def test_rocrate_reads_the_description(opened):
    from rocrate.rocrate import ROCrate

    crate = ROCrate(opened[0])
    (run,) = crate.get_by_type("CreateAction")
    assert crate.mainEntity.id == "source/Snakefile" and run["instrument"] is crate.mainEntity
    assert "snakemake" in run["description"]
    assert len(run["result"]) > 50


def test_no_place_of_the_machine_is_in_an_archive(archived, archive):
    private = [str(archived.folder), str(archived.source), str(Path.home()), f"/home/{getpass.getuser()}"]
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if not name.startswith("source/"):
                content = opened.read(name).decode(errors="replace")
                assert [place for place in private if f"{place}/" in content or f'{place}"' in content] == [], name
        (line,) = opened.read("logs/journal.jsonl").decode().splitlines()
    assert json.loads(line)["command"][-4:] == ["--directory", ".", "--configfile", "./config.yaml"]


def test_the_way_to_a_device_and_its_keys_are_in_no_archive(archived, tmp_path):
    devices = {
        "this-machine": {"transport": "local", "budget_ms": 1000},
        "jetson": {
            "transport": "ssh", "host": "jetson.lab.example", "user": "annalena", "port": 2222, "budget_ms": 1,
            "identity_file": str(tmp_path / "keys/jetson"), "gateways": ["ottokar@hop.lab.example:22"], "threads": 2,
        },
    }  # fmt: skip
    record = next(archived.path("candidates").glob("*/train.json"))
    before = record.read_bytes()
    told = {
        **json.loads(before),
        "reason": f"annalena@jetson.lab.example, key {tmp_path}/keys/jetson, by hop.lab.example",
    }
    try:
        write_json(record, told)
        resources = {"train": {"account": "secret-project"}}
        pack_as(archived, tmp_path / "run.zip", devices=devices, resources=resources)
    finally:
        record.write_bytes(before)
    with zipfile.ZipFile(tmp_path / "run.zip") as opened:
        text = {
            name: opened.read(name).decode(errors="replace")
            for name in opened.namelist()
            if not name.startswith("source/")
        }
    for word in ("jetson.lab.example", "annalena", "keys/jetson", "ottokar", "hop.lab.example", "secret-project"):
        assert [name for name in text if word in text[name]] == [], word
    assert yaml.safe_load(text["config.yaml"])["devices"]["jetson"] == {
        "transport": "ssh", "host": "jetson", "budget_ms": 1, "threads": 2,
    }  # fmt: skip
    kept = json.loads(text[str(record.relative_to(archived.folder))])
    assert kept["reason"] == "jetson, key identity_file, by jetson"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda run: f"see {run.folder}/results".encode(), "names a place of this machine"),
        (lambda run: KEY, "holds a private key"),
        (lambda run: KEY + b"\nProc-Type: 4,ENCRYPTED\n\n", "holds a private key"),
        (lambda run: json.dumps({"key": f"{KEY.decode()}\nAAAA"}).encode(), "holds a private key"),
    ],
)
def test_a_file_that_cannot_be_cleaned_is_not_archived_and_named(archived, tmp_path, content, complaint):
    file = archived.path("finalists/0123456789ab/bundle.zip")
    file.parent.mkdir(parents=True)
    try:
        file.write_bytes(content(archived))
        with pytest.raises(ArchiveError, match=f"results/finalists/0123456789ab/bundle.zip.*{complaint}"):
            pack_as(archived, tmp_path / "run.zip")
    finally:
        shutil.rmtree(archived.path("finalists"))
    assert not (tmp_path / "run.zip").exists()


def test_no_file_of_these_sources_is_taken_for_a_key():
    """The runs of these tests have a part of the sources; a user's has all of them."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in files.split("\0") if (ROOT / name).is_file()]
    assert str(Path(__file__).relative_to(ROOT)) in names
    for name in names:
        privacy.refuse_keys(name, (ROOT / name).read_bytes())


def test_finalists_with_their_bundles_and_the_report_are_archived(archived, archive):
    (candidate,) = read_json(archived.path("finalists.json"))["candidates"]
    of_seeds = [f"{seed}/{file}" for seed in (1, 2) for file in ("weights.pt", "model.onnx", "test.json")]
    expected = {"report.html", *(f"finalists/{candidate}/{name}" for name in ("bundle.zip", *of_seeds))}
    assert {f"results/{name}" for name in expected} <= names(archive)


def test_of_the_front_alone_weights_are_archived_when_only_those_are_asked_for(archived, tmp_path):
    smaller = {**complete(archived)["archive"], "models": "front"}
    pack_as(archived, tmp_path / "run.zip", archive=smaller)
    front = read_json(archived.path("generations/001/state.json"))["front"]
    assert len(front) < 4
    weights = {name.split("/")[2] for name in names(tmp_path / "run.zip") if name.endswith("weights.pt")}
    others = weights - set(front)
    assert set(front) <= weights and len(others) == 1
    said = unpack.unpack(tmp_path / "run.zip", tmp_path / "new")
    assert f"{4 - len(front)} candidates came without their weights" in "".join(said)


def test_changed_sources_are_refused_before_any_job_or_archived_as_a_patch(copy, edited, tmp_path):
    edited("edge/wire.py")
    unknown = copy.source / "src/edgeloop/unknown.py"
    unknown.write_text("NEW = True\n")
    try:
        refusal = copy.snakemake("archive", "--rerun-triggers", "mtime", fails=True)
        assert "are not those of a commit: edge/wire.py, src/edgeloop/unknown.py" in refusal
        assert not copy.path("archive").exists() and "localrule archive:" not in refusal
        copy.config["archive"] = {"changes": "patch"}
        pack_as(copy, tmp_path / "run.zip")
    finally:
        unknown.unlink()
    with zipfile.ZipFile(tmp_path / "run.zip") as made:
        assert b"EDITED_BY_A_TEST" not in made.read("source/edge/wire.py")
    folder = tmp_path / "new"
    about, _ = unpack.extract(tmp_path / "run.zip", folder)
    assert about["changed"] == ["edge/wire.py", "src/edgeloop/unknown.py"]
    assert "EDITED_BY_A_TEST" in (folder / "source/edge/wire.py").read_text()
    assert (folder / "source/src/edgeloop/unknown.py").read_text() == "NEW = True\n"


def test_replay_decides_the_same_candidates_and_the_same_front(archived, outside):
    said = command(archived, outside)("replay", "run.zip")
    assert said.count("the same 4 proposals, the same 2 candidates") == 2
    assert said.count("the same front of") == 2
    assert "the search comes out the same" in said and "note:" not in said


def test_replay_with_other_code_says_which_files_and_which_commit(archived, archive, outside, edited):
    edited("src/edgeloop/search/pareto.py")
    said = command(archived, outside)("replay", "run.zip")
    commit = json.loads(zipfile.ZipFile(archive).read("archive.json"))["commit"]
    assert f"not that of the archive, commit {commit[:12]} (other content: src/edgeloop/search/pareto.py)" in said
    assert "the search comes out the same" in said


def test_replay_with_code_that_decides_otherwise_says_where(archived, outside):
    file = archived.source / "src/edgeloop/search/decide.py"
    before = file.read_text()
    try:
        file.write_text(before.replace("PROPOSE, CHOOSE = 0, 1", "PROPOSE, CHOOSE = 2, 3"))
        said = command(archived, outside)("replay", "run.zip", code=1)
    finally:
        file.write_text(before)
    assert re.search(r"generation 0: other proposals: number 1 is \w{12}, was \w{12}", said)
    assert "other content: src/edgeloop/search/decide.py" in said


def test_replay_sees_a_record_that_tells_something_else(opened):
    folder, _, config = opened
    candidate = read_json(folder / "results/generations/000/population.json")["candidates"][0]
    file = folder / f"results/candidates/{candidate}/train.json"
    write_json(file, {**read_json(file), "val_rmse": 0.01})
    verdicts = list(replay.replay(folder, config))
    other = next(verdict for verdict in verdicts if verdict.same is False)
    assert other.generation == 0 and other.said.startswith("another state: candidates")


def test_a_decision_whose_records_were_made_again_is_not_decided_anew(opened):
    folder, _, config = opened
    candidate = read_json(folder / "results/generations/000/population.json")["candidates"][0]
    file = folder / f"results/candidates/{candidate}/measure.this-machine.json"
    record = read_json(file)
    write_json(file, {**record, "work": [record["work"][0], 4e9]})
    (verdict,) = [verdict for verdict in replay.replay(folder, config) if verdict.same is None]
    assert verdict.generation == 1
    assert f"candidates/{candidate}/measure.this-machine.json has been made again since" in verdict.said


def test_replay_decides_with_the_budgets_of_the_day(copy):
    copy.config["devices"]["this-machine"]["budget_ms"] = 1e-5
    copy.snakemake("archive")
    with zipfile.ZipFile(copy.path(f"archive/{NAME}")) as made:
        assert json.loads(made.read("results/generations/001/state.json"))["front"] == []
    said = copy.edgeloop("replay", f"results/archive/{NAME}")
    assert said.count("the same 4 proposals, the same 2 candidates") == 2 and said.count("the same front of 0") == 2


def test_a_candidate_is_reproduced_to_the_last_bit(archived, outside):
    front = read_json(archived.path("generations/001/state.json"))["front"]
    said = command(archived, outside)("reproduce", "run.zip", "--candidate", front[0])
    assert f"{front[0]}: reproduced\n  the same to the last bit: val_rmse" in said
    said = command(archived, outside)("reproduce", "run.zip", "--candidate", "0123456789ab", code=1)
    assert "the archive has no candidate 0123456789ab; it has " in said
    assert list(outside.iterdir()) == [outside / "run.zip"]


@pytest.fixture
def trained(opened):
    """An opened archive with its data, and the id of one of its candidates."""
    folder, about, config = opened
    data.restore(folder, config, [], None)
    return folder, about, config, read_json(folder / "results/generations/001/state.json")["front"][0]


def test_another_figure_or_other_weights_are_no_reproduction(trained):
    folder, about, config, candidate = trained
    other = {**about, "weights": {**about["weights"], candidate: "0" * 64}}
    found = reproduce.reproduce(folder, other, config, candidate)
    assert not found.same and "expected 000000000000" in found.said[0]
    file = folder / f"results/candidates/{candidate}/train.json"
    record = read_json(file)
    write_json(file, {**record, "val_rmse": record["val_rmse"] * (1 + 1e-15)})
    found = reproduce.reproduce(folder, about, config, candidate)
    assert not found.same and found.exact and found.said[0].startswith("val_rmse was")


def test_elsewhere_a_figure_within_the_tolerance_is_enough(trained):
    folder, about, config, candidate = trained
    file = folder / f"results/candidates/{candidate}/train.json"
    record = read_json(file)
    for factor, same in ((1.02, True), (1.1, False)):
        write_json(file, {**record, "device": "cpu: another one", "val_rmse": record["val_rmse"] * factor})
        found = reproduce.reproduce(folder, about, config, candidate)
        assert found.same is same and not found.exact
        assert "device was cpu: another one" in found.said[0] and "at most 5.00% expected" in found.said[-1]


def test_other_data_than_the_runs_are_refused(opened):
    folder, _, config = opened
    config["dataset"]["simulate"]["seed"] = 2
    with pytest.raises(ArchiveError, match="are not those that the run was made from: fingerprint"):
        data.restore(folder, config, [], None)
    assert not list((folder / "results/data").glob("*.npy"))
    config["dataset"]["source"] = "raise-lpbf"
    with pytest.raises(ArchiveError, match="--data FOLDER"):
        data.restore(folder, config, [], None)


def test_a_search_goes_on_from_its_archive_and_does_nothing_again(archived, archive, tmp_path):
    folder = tmp_path / "new"
    said = command(archived, tmp_path)("unpack", archive, folder)
    assert "--config 'search={max_generations: 3}'" in said
    assert "is not empty" in command(archived, tmp_path)("unpack", archive, folder, code=1)
    run = Run(folder, folder / "source", yaml.safe_load((folder / "config.yaml").read_text()))
    assert "Nothing to be done" in run.snakemake()
    before = run.contents("candidates/*/*") | run.contents("generations/*/*")
    executed = run.executed(run.snakemake("--config", "search={max_generations: 3}"))
    assert executed["train"] == executed["export"] == executed["measure"] == 2
    assert executed["propose"] == executed["sample"] == executed["select"] == executed["screen"] == 1
    assert not {"simulate", "prepare", "predict", "baseline", "enrol"} & executed.keys()
    assert before.items() <= (run.contents("candidates/*/*") | run.contents("generations/*/*")).items()
    assert read_json(run.path("summary.json"))["search"]["generations"] == 3


def test_another_search_learns_from_an_archive_as_from_the_run(archived, archive):
    from_archive, from_run = warm_start.read(archive), warm_start.read(archived.folder)
    assert from_archive == from_run and len(from_archive["results"]) == 4
