"""Measuring on this machine through the very runner and protocol that a remote device gets, on real onnxruntime."""

import ast
import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import edge
from edge import runner, wire
from edge.reference import reference_model, reference_sha256

QUICK = edge.Timing(min_runs=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1, quiet_wait_s=0)
ENDLESS = edge.Timing(min_s=300, max_s=300)
OPSET = [helper.make_opsetid("", 13)]


def save(path: Path, nodes, inputs, outputs, weights=(), opsets=OPSET) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, list(weights))
    onnx.save(helper.make_model(graph, ir_version=7, opset_imports=opsets), path)
    return path


def linear(path: Path, scale: float = 0.01, batch: int | str = "N", frames: int = 4) -> Path:
    """uint8 [batch, frames, 12, 12] to float32 [batch, 2]."""
    weights = np.random.default_rng(0).uniform(-scale, 2 * scale, (frames * 144, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["clip"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["target"]),
    ]
    return save(
        path,
        nodes,
        [helper.make_tensor_value_info("clip", TensorProto.UINT8, [batch, frames, 12, 12])],
        [helper.make_tensor_value_info("target", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(weights, "weights")],
    )


def lacking_operator(path: Path) -> Path:
    """A model with an operator that no runtime has."""
    return save(
        path,
        [helper.make_node("Teleport", ["x"], ["y"], domain="nowhere")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        opsets=[*OPSET, helper.make_opsetid("nowhere", 1)],
    )


def local(folder: Path, **changes) -> edge.Device:
    """This machine, with a work folder and a lock of its own."""
    entry = {"work_folder": str(folder / "work"), "lock_file": str(folder / "lock")}
    return edge.Device.from_config("here", entry | changes)


@pytest.fixture(scope="module")
def enrolment(tmp_path_factory) -> dict:
    with edge.connect(local(tmp_path_factory.mktemp("enrolment"))) as session:
        return session.enrol()


def measure(device, enrolment, *jobs, timing=QUICK) -> list[dict]:
    jobs = [job if isinstance(job, edge.Job) else edge.Job(job) for job in jobs]
    with edge.connect(device) as session:
        return session.measure(jobs, timing, enrolment=enrolment)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in text.split()]


def kill_the_model(number: int) -> threading.Thread:
    """Send `number` to the process that times a model on this machine, once there is one. This process may have other
    children: an sshd of other tests, say."""
    bootstrap = wire.BOOTSTRAP.read_bytes()

    def work() -> None:
        for _ in range(400):
            runners = [pid for pid in children(os.getpid()) if bootstrap in Path(f"/proc/{pid}/cmdline").read_bytes()]
            for pid in runners:
                if len(children(pid)) == 2:  # its watchdog, and the model
                    time.sleep(0.2)
                    os.kill(children(pid)[-1], number)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_enrolment_tells_what_the_device_is_and_how_fast(enrolment):
    fingerprint, reference = enrolment["fingerprint"], enrolment["reference"]
    assert fingerprint["onnxruntime"] == onnxruntime.__version__
    assert fingerprint["cores"] == os.cpu_count()
    assert "CPUExecutionProvider" in fingerprint["providers"]
    assert reference["sha256"] == reference_sha256()
    assert reference["runs"] >= 2000
    assert 0 < reference["p5_ms"] <= reference["p50_ms"] <= reference["p99_ms"]


def test_a_record_has_raw_samples_percentiles_and_the_paired_figure(tmp_path, enrolment):
    (record,) = measure(local(tmp_path), enrolment, linear(tmp_path / "m.onnx"))
    assert record["status"] == "ok"
    samples = record["samples_ms"]
    assert record["runs"] == len(samples) >= 20
    assert record["latency_p50_ms"] == pytest.approx(np.percentile(samples, 50), abs=1e-6)
    assert record["latency_p5_ms"] <= record["latency_p50_ms"] <= record["latency_p90_ms"] <= record["latency_p99_ms"]
    assert record["latency_min_ms"] == min(samples)
    assert record["reference_p5_ms"] == pytest.approx(np.percentile(record["reference_samples_ms"], 5), abs=1e-6)
    assert record["latency_ms"] == pytest.approx(record["ratio"] * enrolment["reference"]["p5_ms"], abs=1e-6)
    assert record["provider"] == "CPUExecutionProvider"
    assert record["outputs"] is None
    assert record["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert record["warmup_runs"] > 0 and record["load_s"] > 0
    assert record["telemetry"]["before"]["time_s"] < record["telemetry"]["after"]["time_s"]


def test_progress_is_told_of_each_model(tmp_path, enrolment):
    told = []

    def progress(items, *, total, label, unit):
        for item in items:
            yield item
            told.append((label, unit, total))

    device, model = local(tmp_path), linear(tmp_path / "m.onnx")
    with edge.connect(device) as session:
        jobs = [edge.Job(model), edge.Job(linear(tmp_path / "n.onnx", scale=0.02))]
        records = session.measure(jobs, QUICK, enrolment=enrolment, progress=progress)
    assert [record["model"] for record in records] == ["m.onnx", "n.onnx"]
    # On a machine that is busy with other things, what is doubtful is measured again.
    assert told[:2] == [(f"measure on {device.name}", "network", 2)] * 2
    assert {label for label, _, _ in told[2:]} <= {f"measure on {device.name} again"}


def test_the_reference_measured_as_a_model_is_as_fast_as_itself(tmp_path, enrolment):
    path = tmp_path / "reference.onnx"
    path.write_bytes(reference_model())
    (record,) = measure(local(tmp_path), enrolment, path, timing=edge.Timing(quiet_wait_s=0))
    assert record["ratio"] == pytest.approx(1, rel=0.1)


def test_peak_memory_is_of_each_model_alone(tmp_path, enrolment):
    big = save(
        tmp_path / "big.onnx",
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8_000_000])],
        [numpy_helper.from_array(np.zeros(8_000_000, np.float32), "w")],  # 32 MB, and as much of output
    )
    small = linear(tmp_path / "small.onnx")
    before, peak, after = measure(local(tmp_path), enrolment, small, big, small)
    assert peak["peak_memory_mb"] > 60
    assert before["peak_memory_mb"] < 20 and after["peak_memory_mb"] < 20


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_outputs_on_the_device_equal_those_of_onnxruntime_here(tmp_path, enrolment, batch):
    clips = np.random.default_rng(3).integers(0, 256, (5, 8, 12, 12), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    model = linear(tmp_path / "m.onnx", batch=batch)
    (record,) = measure(local(tmp_path), enrolment, edge.Job(model, tmp_path / "clips.npy"))
    weights = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    expected = clips[:, 2:6].reshape(5, -1) @ weights
    np.testing.assert_allclose(record["outputs"], expected, rtol=1e-5, atol=1e-4)


def test_outputs_that_are_not_finite_make_a_failed_record(tmp_path, enrolment):
    np.save(tmp_path / "clips.npy", np.full((2, 4, 12, 12), 255, np.uint8))
    model = linear(tmp_path / "m.onnx", scale=5e37)
    (record,) = measure(local(tmp_path), enrolment, edge.Job(model, tmp_path / "clips.npy"))
    assert record["status"] == "failed" and "not finite" in record["reason"]


def test_failing_models_are_records_and_the_others_are_measured(tmp_path, enrolment):
    (tmp_path / "text.onnx").write_text("no model at all")
    np.save(tmp_path / "wide.npy", np.zeros((1, 4, 20, 20), np.uint8))
    good = linear(tmp_path / "good.onnx")
    damaged, lacking, misfit, last = measure(
        local(tmp_path),
        enrolment,
        tmp_path / "text.onnx",
        lacking_operator(tmp_path / "lacking.onnx"),
        edge.Job(good, tmp_path / "wide.npy"),
        good,
    )
    assert damaged["status"] == "failed" and "INVALID_PROTOBUF" in damaged["reason"]
    assert lacking["status"] == "failed" and "Teleport" in lacking["reason"]
    assert misfit["status"] == "failed" and "(1, 4, 20, 20)" in misfit["reason"]
    assert str(tmp_path) not in damaged["reason"]
    assert last["status"] == "ok"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_model_that_crashes_takes_nothing_else_with_it(tmp_path, enrolment, number):
    killer = kill_the_model(number)
    # The first model would run for minutes; the second one's time is short because of its deadline.
    crashed, stopped = measure(
        local(tmp_path, deadline_s=3), enrolment, *[linear(tmp_path / "m.onnx")] * 2, timing=ENDLESS
    )
    killer.join()
    assert crashed["status"] == "failed" and number.name in crashed["reason"]
    assert stopped["status"] == "failed" and "deadline" in stopped["reason"] and "3 s" in stopped["reason"]


def test_symbolic_shapes_several_inputs_and_types_are_made_up(tmp_path, enrolment):
    model = save(
        tmp_path / "many.onnx",
        [
            helper.make_node("Gather", ["table", "index"], ["rows"]),
            helper.make_node("Cast", ["mask"], ["weight"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["rows", "weight"], ["masked"]),
            helper.make_node("Cast", ["half"], ["full"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["masked", "full"], ["y"]),
        ],
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, ["N", "L"]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", 1, 3]),
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["N", "L", 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((2, 3), np.float32), "table")],
    )
    longer = edge.Job(model, shapes={"index": [4, 7], "half": [4, 7, 3], "mask": [4, 1, 3]})
    wrong = edge.Job(model, shapes={"indx": [4, 7]})
    plain, long, misnamed = measure(local(tmp_path), enrolment, model, longer, wrong)
    assert plain["status"] == "ok" and plain["batch_size"] == 1
    assert long["status"] == "ok" and long["batch_size"] == 4
    assert misnamed["status"] == "failed" and "'indx'" in misnamed["reason"]


def test_the_batch_size_fits_or_is_refused(tmp_path, enrolment):
    timing = edge.Timing(min_runs=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1, quiet_wait_s=0, batch_size=8)
    free, fixed = linear(tmp_path / "free.onnx"), linear(tmp_path / "fixed.onnx", batch=1)
    taken, refused = measure(local(tmp_path), enrolment, free, fixed, timing=timing)
    assert taken["batch_size"] == 8
    assert refused["status"] == "failed" and "fixed at 1" in refused["reason"]


def test_further_batch_sizes_are_told_beside_the_first(tmp_path, enrolment):
    free, fixed = linear(tmp_path / "free.onnx"), linear(tmp_path / "fixed.onnx", batch=1)
    np.save(tmp_path / "clips.npy", np.zeros((3, 4, 12, 12), np.uint8))
    jobs = [edge.Job(free, tmp_path / "clips.npy", batch_sizes=[8, 512]), edge.Job(fixed, batch_sizes=[8])]
    taken, refused = measure(local(tmp_path), enrolment, *jobs)
    assert taken["batch_size"] == 1 and len(taken["outputs"]) == 3
    eight, many = taken["by_batch_size"]
    assert (eight["batch_size"], many["batch_size"]) == (8, 512)
    assert many["ratio"] > 5 * taken["ratio"]
    assert refused["status"] == "ok"
    assert refused["by_batch_size"][0]["status"] == "failed"
    assert "fixed at 1" in refused["by_batch_size"][0]["reason"]


def test_another_provider_than_the_cpu_is_timed_synchronised_with_bound_inputs(tmp_path, enrolment):
    # onnxruntime's plain wheels have a second provider, which leaves the work to the CPU: the path of an accelerator.
    providers = ["AzureExecutionProvider", "CPUExecutionProvider"]
    np.save(tmp_path / "clips.npy", np.ones((2, 4, 12, 12), np.uint8))
    model = linear(tmp_path / "m.onnx")
    (record,) = measure(local(tmp_path, providers=providers), enrolment, edge.Job(model, tmp_path / "clips.npy"))
    assert record["status"] == "ok" and record["providers"] == providers
    assert "provider-fallback" not in record["flags"]
    assert record["ratio_basis"] == "wall" and record["latency_cpu_p5_ms"] is None  # CPU time says nothing there
    assert record["engine_build_s"] is None
    expected = np.ones((2, 576)) @ numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    np.testing.assert_allclose(record["outputs"], expected, rtol=1e-5)


def test_a_slow_model_is_not_timed_for_longer_than_asked(tmp_path, enrolment):
    timing = edge.Timing(min_runs=10**6, min_s=0, max_s=0.2, min_runs_slow=10, warmup_max_s=0.1, quiet_wait_s=0)
    (record,) = measure(local(tmp_path), enrolment, linear(tmp_path / "m.onnx"), timing=timing)
    assert 10 <= record["runs"] < 10**6


class Steady:
    """A model that always says that it took so long."""

    def __init__(self, run_ns: int) -> None:
        self.run_ns = run_ns

    def step(self) -> int:
        time.sleep(0.01)
        return self.run_ns


def test_a_model_slower_than_the_whole_warm_up_is_not_taken_for_cold():
    timing = {"min_runs": 2, "min_s": 0, "max_s": 0, "min_runs_slow": 2, "warmup_max_s": 0.001}
    timed = runner.interleave(Steady(2 * 10**9), Steady(10**8), timing, lambda: None)
    assert timed["stable"] and timed["warmup_runs"] == 4  # the two very first, and one in each window


def test_a_busy_device_is_an_error_that_says_who_holds_it(tmp_path, enrolment):
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 1 of somebody else")
        lock.flush()
        with pytest.raises(edge.DeviceBusy, match=r"'here'.*held by pid 1 of somebody else.*lock_timeout_s"):
            measure(local(tmp_path, lock_timeout_s=0.1), enrolment, linear(tmp_path / "m.onnx"))
    assert measure(local(tmp_path), enrolment, tmp_path / "m.onnx")[0]["status"] == "ok"
    assert os.stat(tmp_path / "lock").st_mode & 0o600 == 0o600


def test_the_lock_is_open_to_all_users_of_the_device(tmp_path, enrolment):
    measure(local(tmp_path), enrolment, linear(tmp_path / "m.onnx"))
    assert os.stat(tmp_path / "lock").st_mode & 0o777 == 0o666


def test_what_the_device_lacks_is_an_error_and_never_a_record(tmp_path, enrolment):
    model = linear(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("")
    for changes, error, words in (
        ({"python": "/nowhere/python"}, edge.RuntimeMissing, "/nowhere/python"),
        ({"providers": ["TensorrtExecutionProvider"]}, edge.RuntimeMissing, "TensorrtExecutionProvider"),
        ({"cpus": [4096]}, edge.RuntimeMissing, "4096"),
        ({"work_folder": str(tmp_path / "file" / "work")}, edge.StorageFailed, "work_folder"),
    ):
        with pytest.raises(error, match=words):
            measure(local(tmp_path, **changes), enrolment, model)


def test_a_python_without_onnxruntime_is_an_error(tmp_path, enrolment):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{os.path.realpath(edge.Device("x").python)}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(edge.RuntimeMissing, match=r"No module named '(numpy|onnxruntime)'.*Python 3"):
        measure(local(tmp_path, python=str(bare)), enrolment, linear(tmp_path / "m.onnx"))


def test_another_device_than_the_enrolled_is_an_error(tmp_path, enrolment):
    other = enrolment | {"fingerprint": enrolment["fingerprint"] | {"cpu_model": "Cortex-A78AE"}}
    with pytest.raises(edge.EnrolmentMismatch, match=r"cpu_model was 'Cortex-A78AE'.*enrol it again"):
        measure(local(tmp_path), other, linear(tmp_path / "m.onnx"))


def test_the_work_folder_stays_within_its_size_and_mends_damage(tmp_path, enrolment):
    device = local(tmp_path, cache_mb=1)
    work = tmp_path / "work"
    big = linear(tmp_path / "big.onnx", frames=700)  # 0.8 MB
    measure(device, enrolment, big)
    old = work / wire.file_sha256(big)
    os.utime(old, (1, 1))
    (work / "left-by-a-killed-session.1.tmp").write_bytes(b"x")
    measure(device, enrolment, linear(tmp_path / "next.onnx", frames=699))
    assert not old.exists()
    assert sum(entry.stat().st_size for entry in work.iterdir()) <= 1_000_000
    assert not list(work.glob("*.tmp"))

    kept = work / wire.file_sha256(tmp_path / "next.onnx")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert measure(device, enrolment, tmp_path / "next.onnx")[0]["status"] == "ok"


def test_the_runner_needs_no_more_than_python_3_8():
    for path in (wire.RUNNER, wire.BOOTSTRAP, wire.PROBE):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        imports = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
        assert "edge" not in imports and "edgeloop" not in imports


def test_the_reference_is_the_same_to_the_last_bit_everywhere():
    assert reference_sha256() == "dae81185cfd190dd856b98fcd23d62b38ab60b62e171565d489dd33e08c70ab9"
