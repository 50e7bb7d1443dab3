"""The status of a run from made-up files: jobs, failures, what is over budget, the front, the time left."""

import json
from base64 import urlsafe_b64encode

import pytest

from edgeloop import status
from edgeloop.records import candidate_id, failed, ok, write_json

NOW = 10_000.0


class MadeUp:
    """A run's folder, written file by file."""

    def __init__(self, folder):
        self.folder = folder
        self.genotypes = []
        (folder / "logs").mkdir()
        (folder / "logs/journal.jsonl").write_text(json.dumps({"max_generations": 4}) + "\n")

    def generation(self, number, count, *, began_at=0.0, chosen=True, state=False):
        folder = self.folder / f"results/generations/{number:03d}"
        genotypes = [
            {"architecture": {"family": "conv2d", "n": 10 * number + n}, "precision": "fp32", "training": {}}
            for n in range(count)
        ]
        names = [candidate_id(genotype) for genotype in genotypes]
        settings = {"budgets": {"bench": {"latency_ms": 1.0}}}
        about = {"generation": number, "decided_at": began_at, "settings": settings}
        write_json(folder / "proposals.json", {**about, "proposals": genotypes})
        for name, genotype in zip(names, genotypes, strict=True):
            write_json(self.folder / f"results/candidates/{name}/genotype.json", {"genotype": genotype})
        if chosen:
            write_json(folder / "population.json", {**about, "candidates": names})
        if state:
            write_json(folder / "state.json", {"hypervolume": [0.1 * (n + 1) for n in range(number + 1)]})
        return names

    def record(self, name, file, record, at=0.0):
        write_json(self.folder / f"results/candidates/{name}/{file}.json", {**record, "work": [at, at]})

    def finish(self, name, *, loss=0.3, latency_ms=0.5, at=0.0):
        self.record(name, "train", ok(val_rmse=loss, parameters=100), at)
        self.record(name, "export", ok(), at)
        self.record(name, "measure.bench", ok(latency_ms=latency_ms, device="bench"), at)

    def mark(self, output, job=None):
        mark = self.folder / ".snakemake/incomplete" / urlsafe_b64encode(output.encode()).decode()
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps({"external_jobid": job}))

    def status(self):
        return status.gather(self.folder, NOW)


@pytest.fixture
def run(tmp_path):
    return MadeUp(tmp_path)


def test_a_candidate_counts_as_trained_failed_or_over_budget(run):
    good, slow, broken, _ = run.generation(0, 4)
    run.finish(good)
    run.finish(slow, latency_ms=1.5)
    run.record(broken, "train", failed(f"training of {broken} diverged: the loss is nan"))
    found = run.status()
    assert (found.trained, found.failed, found.infeasible) == (2, 1, 1)
    assert found.reasons == {"training of ... diverged: the loss is nan": 1}
    assert [entry["name"] for entry in found.front] == [good]


def test_of_each_stage_it_says_what_is_done_failed_running_and_waiting(run):
    done, at_work, broken, _ = run.generation(0, 4)
    run.finish(done)
    run.record(broken, "train", failed("out of memory"))
    run.mark(f"results/candidates/{at_work}/train.json")
    run.mark(f"results/candidates/{at_work}/weights.pt")
    train, export, measure = run.status().stages
    assert train == status.Stage("train", done=1, failed=1, running=1, waiting=1)
    assert export == status.Stage("export", done=1, failed=0, running=0, waiting=3)
    assert (measure.name, measure.waiting) == ("measure on bench", 3)
    (job,) = run.status().jobs
    assert (job.stage, job.of, job.queued) == ("train", at_work, False)


def test_a_job_that_a_cluster_has_not_begun_is_queued_until_it_writes_its_log(run):
    (name,) = run.generation(0, 1)
    run.mark(f"results/candidates/{name}/train.json", job="4711")
    assert run.status().jobs[0].queued
    log = run.folder / f"logs/train/{name}.log"
    log.parent.mkdir()
    log.touch()
    assert not run.status().jobs[0].queued


@pytest.mark.parametrize(
    ("output", "stage", "of"),
    [
        ("results/candidates/0123456789ab/measure.jetson-2.json", "measure", "0123456789ab.jetson-2"),
        ("results/generations/003/screening.jetson-2.json", "screen", "003.jetson-2"),
        ("results/generations/003/drafts", "draft", "003"),
        ("results/packs/0123456789ab/train", "train_pack", "0123456789ab"),
        ("results/raw/S001.h5", "simulate", "S001"),
        ("results/history.3.json", "conclude", "history.3.json"),
        ("elsewhere", "other", "elsewhere"),
    ],
)
def test_the_output_of_a_job_tells_its_stage(run, output, stage, of):
    run.mark(output)
    (job,) = run.status().jobs
    assert (job.stage, job.of) == (stage, of)


def test_an_output_whose_mark_is_cut_into_folders_is_read(run):
    encoded = urlsafe_b64encode(b"results/generations/000/drafts").decode()
    mark = run.folder / f".snakemake/incomplete/@{encoded[:10]}/@{encoded[10:20]}/{encoded[20:]}"
    mark.parent.mkdir(parents=True)
    mark.write_text('{"external_jobid": null}')
    assert [(job.stage, job.of) for job in run.status().jobs] == [("draft", "000")]


def test_a_device_is_measuring_while_a_job_of_its_own_is_at_work(run):
    (name,) = run.generation(0, 1)
    assert run.status().devices[0].doing is None
    run.mark(f"results/candidates/{name}/measure.bench.json")
    assert run.status().devices[0].doing == f"measure {name}"


def test_a_device_shows_its_hottest_zone_and_what_makes_its_figures_doubtful(run):
    (name,) = run.generation(0, 1)
    after = {"thermal_c": {"cpu": 61.0, "gpu": 48.5, "board": None}}
    run.record(name, "measure.bench", ok(telemetry={"after": after}, flags=["throttled"]), at=NOW - 5)
    (device,) = run.status().devices
    assert (device.celsius, device.flags, device.measured_at) == (61.0, ["throttled"], NOW - 5)


def test_the_front_has_what_is_measured_in_the_present_generation_already(run):
    first = run.generation(0, 2, state=True)
    second = run.generation(1, 2)
    run.finish(first[0], loss=0.3, latency_ms=0.5)
    run.finish(first[1], loss=0.4, latency_ms=0.6)
    run.finish(second[0], loss=0.2, latency_ms=0.9)
    assert [entry["name"] for entry in run.status().front] == [second[0], first[0]]
    assert run.status().hypervolume == [0.1]


def test_the_time_left_is_that_of_the_usual_generation(run):
    for number, (began_at, ended_at) in enumerate([(0.0, 100.0), (5000.0, 5120.0)]):  # nobody worked in between
        for name in run.generation(number, 2, began_at=began_at, state=True):
            run.finish(name, at=ended_at)
    run.generation(2, 2, began_at=NOW - 50)
    found = run.status()
    assert found.left_s == pytest.approx(2 * 110 - 50)
    assert found.left_by.startswith("at most, at 1 min 50 s a generation")


def test_in_the_first_generation_the_time_left_goes_by_candidates(run):
    first, second = run.generation(0, 2, began_at=NOW - 60)
    assert run.status().left_s is None and "before the first candidate" in run.status().left_by
    run.finish(first)
    assert run.status().left_s == pytest.approx(7 * 60)
    run.record(second, "train", failed("diverged"))
    assert run.status().left_s == pytest.approx(6 * 30)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h"), (-3, "0 s")],
)
def test_a_duration_is_said_as_a_person_says_it(seconds, said):
    assert status.duration(seconds) == said
