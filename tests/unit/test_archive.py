"""Parts of archives that need no run: what is private, what differs from a commit, packs, what is archived."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from edgeloop.archive import ArchiveError, code, container, contents, sources, unpack
from edgeloop.archive.privacy import Private, portable_config
from edgeloop.populations import cut
from edgeloop.records import write_json

CONFIG = {
    "space": "/home/ann/spaces/mine.yaml",
    "dataset": {"source": "raise-lpbf", "path": ["/data/raise", "video/C028.h5"], "node_local": "/scratch/ann"},
    "search": {"strategy": "random", "seed": 3, "warm_start": ["~/runs/first", "second.zip"]},
    "devices": {
        "desk": {"transport": "local", "budget_ms": 1.0, "python": "/home/ann/venv/bin/python"},
        "pi": {"transport": "ssh", "host": "10.0.0.7", "user": "ann", "identity_file": "~/.ssh/pi", "budget_ms": 2.0},
    },
    "resources": {"train": {"account": "proj7", "partition": "gpu"}},
}


def test_the_archived_configuration_says_what_was_measured_and_not_where_and_by_whom():
    assert portable_config(CONFIG) == {
        "space": "space.yaml",
        "dataset": {"source": "raise-lpbf", "path": ["raise", "video/C028.h5"], "node_local": None},
        "search": {"strategy": "random", "seed": 3, "warm_start": ["first", "second.zip"]},
        "devices": {
            "desk": {"transport": "local", "budget_ms": 1.0},
            "pi": {"transport": "ssh", "budget_ms": 2.0, "host": "pi"},
        },
        "resources": {"train": {"account": None, "partition": "gpu"}},
    }
    assert CONFIG["devices"]["pi"]["host"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/clone/runs/one/results/a.json", "./results/a.json"),
        ('"/clone/runs/one"', '"."'),
        ("/clone/src/edgeloop/a.py, line 3", "source/src/edgeloop/a.py, line 3"),
        ("file:///clone/a", "file://source/a"),
        ("/clones/a and /mnt/clone/b", "/clones/a and /mnt/clone/b"),
        (f"{Path.home()}/x", "~/x"),
        ("device 'pi' (10.0.0.7:22)", "device 'pi' (pi:22)"),
        ("ann@10.0.0.7: no", "pi: no"),
        ("10.0.0.71 and 110.0.0.7", "10.0.0.71 and 110.0.0.7"),
        ("with ~/.ssh/pi as key", "with identity_file as key"),
        (f"with {Path.home()}/.ssh/pi.", "with identity_file."),
    ],
)
def test_private_places_are_told_by_other_names_and_nothing_else_is_changed(text, told):
    private = Private(CONFIG, Path("/clone/runs/one"), Path("/clone"))
    assert private.text(text) == told
    if text == told:
        private.check("a", text.encode())
    else:
        with pytest.raises(ArchiveError, match=r"^a\.html cannot be archived"):
            private.check("a.html", b"\xff\x00" + text.encode())


def test_a_command_keeps_the_last_part_of_other_paths():
    private = Private(CONFIG, Path("/clone/runs/one"), Path("/clone"))
    words = [
        "snakemake",
        "--configfile",
        "/etc/lab/mine.yaml",
        "--config",
        "dataset={path: /data/raise}",
        "--directory",
        "/clone/runs/one",
    ]
    assert private.command(words) == [
        "snakemake", "--configfile", "mine.yaml", "--config", "dataset={path: raise}", "--directory", ".",
    ]  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "clone"
    (root / "src").mkdir(parents=True)
    (root / "src/a.py").write_text("A = 1\n")
    (root / "run.sh").write_text("true\n")
    (root / "run.sh").chmod(0o755)
    (root / ".gitignore").write_text("ignored*\n")
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_the_files_of_a_commit_are_those_that_were_committed(checkout):
    (checkout / "src/a.py").write_text("A = 2\n")
    found = {name: (text, executable) for name, text, executable in sources.files(checkout, "HEAD")}
    assert found == {".gitignore": (b"ignored*\n", False), "run.sh": (b"true\n", True), "src/a.py": (b"A = 1\n", False)}


def test_changed_removed_and_unknown_files_of_the_code_are_seen_and_patched(checkout, tmp_path):
    assert sources.changed(checkout) == [] and sources.patch(checkout, []) == b""
    clean = sources.require_clean(checkout, "refuse")
    (checkout / "src/a.py").write_text("A = 2\n")
    (checkout / "src/new.bin").write_bytes(bytes(range(256)))
    (checkout / "src/ignored.py").touch()
    (checkout / "my-notes.txt").touch()  # no code: whoever runs edgeloop may keep files beside it
    (checkout / "run.sh").unlink()
    assert sources.changed(checkout) == ["run.sh", "src/a.py", "src/new.bin"]
    with pytest.raises(ArchiveError, match=r"run\.sh, src/a\.py, src/new\.bin\. Commit them, or .*changes: patch"):
        sources.require_clean(checkout, "refuse")
    assert sources.require_clean(checkout, "patch").startswith(f"{clean}+")
    before = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True).stdout
    patch = sources.patch(checkout, sources.changed(checkout))
    assert subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True).stdout == before
    # Inside of another checkout, too, where git would look at that one's files.
    fresh = checkout / "ignored-copy"
    for name, text, _ in sources.files(checkout, clean):
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(text)
    (tmp_path / "changes.patch").write_bytes(patch)
    sources.apply(tmp_path / "changes.patch", fresh)
    assert (fresh / "src/a.py").read_text() == "A = 2\n"
    assert (fresh / "src/new.bin").read_bytes() == bytes(range(256)) and not (fresh / "run.sh").exists()


def test_sources_without_a_commit_of_their_own_are_refused(checkout, tmp_path):
    (checkout / "src/inner").mkdir()
    for folder, why in ((tmp_path, "not a git repository"), (checkout / "src/inner", "lies in the checkout")):
        with pytest.raises(ArchiveError, match=f"is no checkout of git.*{why}"):
            sources.commit(folder)


def test_the_same_entries_give_the_same_file_in_whatever_order_they_come(tmp_path):
    entries = [container.Entry(name, lambda name=name: name.encode() * 50, name == "b") for name in ("c", "a", "b")]
    first = container.write(tmp_path / "one.zip", entries)
    assert container.write(tmp_path / "two.zip", reversed(entries)) == first
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as made:
        assert made.namelist() == ["a", "b", "c"] and made.testzip() is None
    with container.Reader(tmp_path / "one.zip") as opened:
        opened.extract(tmp_path / "out")
    assert (tmp_path / "out/b").stat().st_mode & 0o111 and not (tmp_path / "out/a").stat().st_mode & 0o111


def test_other_versions_and_other_code_are_told(monkeypatch):
    about = {"commit": "a" * 40, "code": code.digests(), "versions": code.versions()}
    assert code.differences(about) == []
    modules = {**about["code"], "src/edgeloop/gone.py": "0", "edge/wire.py": "0"}
    del modules["edge/device.py"]
    other = {**about, "code": modules, "versions": {**about["versions"], "numpy": "1.0"}}
    assert code.differences(other) == [
        "the code in use is not that of the archive, commit aaaaaaaaaaaa (other content: edge/wire.py; not here: "
        "src/edgeloop/gone.py; only here: edge/device.py)",
        f"numpy is {about['versions']['numpy']} here and was 1.0 then",
    ]


def test_half_written_files_and_what_can_be_made_again_are_not_archived(tmp_path):
    kept = [
        "summary.json",
        "generations/000/state.json",
        "data/train.index.csv",
        "candidates/a/train.json",
        "candidates/a/weights.pt",
    ]
    left = [
        "raw/S001.h5", "data/train.clips.npy", "packs/p/train/a.pt", "packs/p/.stash-train/a", "archive/x.zip",
        "generations/000/drafts/b.onnx", "candidates/a/.train.json.12.tmp", "candidates/b/weights.pt",
    ]  # fmt: skip
    for name in [*kept, *left]:
        file = tmp_path / "results" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    write_json(tmp_path / "results/candidates/a/train.json", {"val_rmse": 0.1})
    write_json(tmp_path / "results/candidates/b/train.json", {"trained": False})
    found = set(contents.files(tmp_path, "all"))
    assert found == {f"results/{name}" for name in [*kept, "candidates/b/train.json"]}


def test_what_packs_had_made_is_there_again(tmp_path):
    members = ["0123456789ab", "123456789abc", "23456789abcd"]
    write_json(tmp_path / "results/generations/000/population.json", {"candidates": members, "pack": 2})
    for name in members:
        folder = tmp_path / "results/candidates" / name
        for file in ("train.json", "export.json"):
            write_json(folder / file, {"file": f"{name} {file}"})
        for file in ("weights.pt", "model.onnx"):
            (folder / file).write_bytes(f"{name} {file}".encode())
    unpack._restore_packs(tmp_path)
    for pack, names in cut(members, 2).items():
        folder = tmp_path / "results/packs" / pack
        assert {file.name for file in (folder / "train").iterdir()} == {
            f"{n}{s}" for n in names for s in (".json", ".pt")
        }
        assert {file.name for file in (folder / "export").iterdir()} == {
            f"{n}{s}" for n in names for s in (".json", ".onnx")
        }
        assert (folder / f"train/{names[0]}.pt").read_text() == f"{names[0]} weights.pt"
