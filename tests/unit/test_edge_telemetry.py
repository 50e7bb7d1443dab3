"""What a board tells of itself. The boards are not at hand: a tree of files as the kernel's documentation describes
them stands for /sys (`EDGELOOP_SYS`). The code that reads it is the one that reads /sys."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from test_edge_measure import linear, local, measure

import edge
from edge import runner
from edge.reference import reference_model

NOTHING = ("thermal_c", "thermal_limit_c", "power_w", "rapl_uj", "governor", "cpu_khz", "gpu_khz", "throttle_count",
           "cooling_state", "rpi_throttled")  # fmt: skip


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    """Writes files below a tree of its own, which the runner takes for /sys."""
    monkeypatch.setattr(runner, "SYS", str(tmp_path / "sys"))

    def write(files):
        for name, content in files.items():
            file = tmp_path / "sys" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
        return tmp_path / "sys"

    return write


CORE = f"devices/system/cpu/cpu{min(os.sched_getaffinity(0))}"
JETSON = {
    "class/thermal/thermal_zone0/type": "CPU-therm",
    "class/thermal/thermal_zone0/temp": 51500,
    "class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "class/thermal/thermal_zone0/trip_point_0_temp": 99000,
    "class/thermal/thermal_zone0/trip_point_1_type": "critical",
    "class/thermal/thermal_zone0/trip_point_1_temp": 104500,
    "class/thermal/thermal_zone1/type": "tj-thermal",
    "class/thermal/cooling_device0/type": "pwm-fan",
    "class/thermal/cooling_device0/cur_state": 2,
    "class/thermal/cooling_device1/type": "cpufreq-cpu0",
    "class/thermal/cooling_device1/cur_state": 0,
    "class/hwmon/hwmon0/name": "ina3221",
    "class/hwmon/hwmon0/in1_label": "VDD_IN",
    "class/hwmon/hwmon0/in1_input": 5000,
    "class/hwmon/hwmon0/curr1_input": 1600,
    "class/hwmon/hwmon0/in2_label": "VDD_CPU_GPU_CV",
    "class/hwmon/hwmon0/in2_input": 5000,
    "class/hwmon/hwmon0/curr2_input": 400,
    "class/hwmon/hwmon0/in7_label": "sum of shunt voltages",
    "class/hwmon/hwmon0/in7_input": 12,
    "class/hwmon/hwmon1/name": "nvme",
    "class/devfreq/17000000.gpu/cur_freq": 624750000,
    f"{CORE}/cpufreq/scaling_cur_freq": 1510400,
    f"{CORE}/cpufreq/scaling_governor": "schedutil",
}
RAPL = {
    "class/powercap/intel-rapl:0/name": "package-0",
    "class/powercap/intel-rapl:0/energy_uj": 1_000_000,
    "class/powercap/intel-rapl:0/max_energy_range_uj": 262_143_328_850,
    "class/powercap/intel-rapl:0:0/name": "core",
    "class/powercap/intel-rapl:0:0/energy_uj": 7,
    "class/powercap/intel-rapl:1/name": "psys",
    "class/powercap/intel-rapl:1/energy_uj": 5_000_000,
    "class/powercap/intel-rapl:1/max_energy_range_uj": 262_143_328_850,
}


def test_a_machine_that_tells_nothing_gives_null_and_no_error(sysfs):
    sysfs({})
    reading = runner.telemetry()
    assert {key: reading[key] for key in NOTHING} == dict.fromkeys(NOTHING)
    assert not runner.throttled(reading) and runner.too_hot(reading) == []
    assert runner.measure_energy(lambda: None) is None


def test_a_jetson_tells_temperature_limits_clocks_and_rails(sysfs):
    sysfs(JETSON)
    reading = runner.telemetry()
    assert reading["thermal_c"] == {"CPU-therm": 51.5, "tj-thermal": None}
    assert reading["thermal_limit_c"] == {"CPU-therm": 99.0, "tj-thermal": None}
    assert reading["power_w"] == {"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 2.0}
    assert (reading["cpu_khz"], reading["gpu_khz"], reading["governor"]) == (1_510_400, 624_750, "schedutil")
    assert reading["cooling_state"] == {"cpufreq-cpu0 1": 0}  # a fan slows nothing down
    assert not runner.throttled(reading)


def test_a_hot_and_a_slowed_board_are_noticed(sysfs):
    sysfs(JETSON | {"class/thermal/thermal_zone0/temp": 99000, "class/thermal/cooling_device1/cur_state": 3})
    reading = runner.telemetry()
    assert runner.too_hot(reading) == ["CPU-therm"]
    assert runner.throttled(reading)


@pytest.mark.parametrize(("bits", "now"), [("0", False), ("50005", True), ("4", True), ("50000", False)])
def test_a_raspberry_pi_tells_whether_it_is_throttled_now_or_was_once(sysfs, bits, now):
    sysfs({"devices/platform/soc/soc:firmware/get_throttled": bits})
    reading = runner.telemetry()
    assert reading["rpi_throttled"] == bits
    assert runner.throttled(reading) == now


def test_the_energy_of_a_jetson_is_the_power_of_its_input_over_time(sysfs):
    sysfs(JETSON)
    energy = runner.measure_energy(lambda: time.sleep(0.02))
    assert (energy["source"], energy["domains"]) == ("ina3221", ["VDD_IN"])  # the other rail is fed by it
    assert energy["power_mean_w"] == pytest.approx(8.0, rel=1e-3)
    assert energy["energy_mj_per_inference"] == pytest.approx(1e3 * 8.0 * energy["seconds"] / energy["runs"], rel=1e-3)
    assert energy["energy_mj_per_inference"] > 0.02 * 8e3


def test_a_board_without_an_input_rail_takes_what_all_rails_take(sysfs):
    sysfs(JETSON | {"class/hwmon/hwmon0/in1_label": "VDD_GPU_SOC", "class/hwmon/hwmon0/in2_label": "VDD_CPU_CV"})
    energy = runner.measure_energy(lambda: time.sleep(0.02))
    assert energy["domains"] == ["VDD_CPU_CV", "VDD_GPU_SOC"]
    assert energy["power_mean_w"] == pytest.approx(10.0, rel=1e-3)


def test_a_power_that_changes_is_integrated(sysfs):
    folder = sysfs(JETSON)
    current = folder / "class/hwmon/hwmon0/curr1_input"
    meter = runner.EnergyMeter()
    meter.read()
    times = [meter.last[0]]
    for milliampere in (2000, 2400, 2400):  # from 8 W to 10, 12, 12
        time.sleep(0.05)
        current.write_text(str(milliampere))
        meter.read()
        times.append(meter.last[0])
    between = zip(np.diff(times), (9, 11, 12), strict=True)
    assert meter.joule == pytest.approx(sum(seconds * watt for seconds, watt in between))


def test_the_counters_of_the_processor_wrap_around(sysfs):
    folder = sysfs(RAPL | {"class/powercap/intel-rapl:0/max_energy_range_uj": 10_000_000})
    counter = folder / "class/powercap/intel-rapl:0/energy_uj"
    meter = runner.EnergyMeter()
    assert (meter.source, meter.domains) == ("rapl", ["package-0"])  # psys counts the package once more
    for microjoule in (1_000_000, 9_500_000, 500_000, 500_000):
        counter.write_text(str(microjoule))
        meter.read()
    assert meter.joule == pytest.approx(8.5 + 1.0)


def test_a_counter_that_may_not_be_read_is_no_counter(sysfs):
    folder = sysfs(RAPL)
    for name in ("intel-rapl:0", "intel-rapl:1"):
        (folder / f"class/powercap/{name}/energy_uj").unlink()
    assert runner.telemetry()["rapl_uj"] is None
    assert runner.measure_energy(lambda: None) is None


def test_a_sensor_that_falls_silent_gives_null(sysfs):
    folder = sysfs(JETSON)
    sensor = folder / "class/hwmon/hwmon0/curr1_input"
    assert runner.measure_energy(lambda: sensor.unlink(missing_ok=True)) is None


def test_readings_while_a_model_is_timed_are_summed_up(sysfs):
    folder = sysfs(JETSON)
    watch = runner.Watch()
    watch()
    watch()  # too soon after the first to be taken
    (folder / CORE / "cpufreq/scaling_cur_freq").write_text("729600")
    (folder / "class/thermal/thermal_zone0/temp").write_text("99500")
    (folder / "class/hwmon/hwmon0/curr1_input").write_text("2000")
    watch.last = 0.0
    watch()
    summary = watch.summary()
    assert summary["readings"] == 2
    assert summary["thermal_max_c"] == {"CPU-therm": 99.5}
    assert summary["power_mean_w"] == {"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 2.0}
    assert (summary["cpu_min_khz"], summary["cpu_max_khz"]) == (729_600, 1_510_400)
    assert (summary["too_hot"], summary["throttled"]) == (["CPU-therm"], False)


def test_a_whole_session_tells_energy_with_its_source(tmp_path, sysfs, monkeypatch):
    monkeypatch.setenv("EDGELOOP_SYS", str(sysfs(JETSON)))
    with edge.connect(local(tmp_path)) as session:
        enrolment = session.enrol()
    assert enrolment["energy_source"] == "ina3221"
    (record,) = measure(local(tmp_path), enrolment, linear(tmp_path / "m.onnx"))
    energy = record["energy"]
    assert record["energy_mj_per_inference"] == energy["energy_mj_per_inference"]
    # In that part the model runs alone, back to back.
    assert energy["energy_mj_per_inference"] == pytest.approx(8e3 * energy["seconds"] / energy["runs"], rel=1e-3)
    assert energy["seconds"] / energy["runs"] < 20e-3 * max(1.0, record["latency_p99_ms"])
    assert record["telemetry"]["during"]["readings"] >= 1


class Load:
    """A machine that is busy or idle as the test wants it, by a /proc of its own (`EDGELOOP_PROC`)."""

    def __init__(self, folder):
        self.folder, self.busy, self.over = folder, False, threading.Event()
        (folder / "pressure").mkdir(parents=True)
        self.idle_s = self.waited_s = 0.0
        self.tell()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def tell(self):
        ticks = int(100 * self.idle_s)
        lines = [f"cpu{core} 0 0 0 {ticks} 0 0 0 0 0 0" for core in range(os.cpu_count() or 1)]
        for name, text in (("stat", "\n".join(lines)), ("pressure/cpu", f"some total={int(1e6 * self.waited_s)}")):
            (self.folder / "new").write_text(text)
            (self.folder / "new").replace(self.folder / name)

    def run(self):
        last = time.monotonic()
        while not self.over.wait(0.005):
            now = time.monotonic()
            if self.busy:
                self.waited_s += now - last
            else:
                self.idle_s += now - last
            last = now
            self.tell()


@pytest.fixture
def load(tmp_path, monkeypatch):
    load = Load(tmp_path / "proc")
    monkeypatch.setenv("EDGELOOP_PROC", str(load.folder))
    yield load
    load.over.set()
    load.thread.join()


def measure_twice(device, model, timing, between):
    """The record of `model` when `between` is called after the first attempt, and the runner's events of all."""
    seen = []
    with edge.connect(device) as session:
        enrolment, run = session.enrol(), session._run

        def watched(jobs, files, quiet=None):
            if quiet is not None:
                between()
            for event in run(jobs, files, quiet):
                seen.append(event["event"])
                yield event

        session._run = watched
        (record,) = session.measure([edge.Job(model)], timing, enrolment=enrolment)
    return record, seen


def attempts_with(flag, record):
    """Which of two attempts counts is not told here: this machine has doubts of its own now and then."""
    return sum(flag in attempt["flags"] for attempt in (record, record["repeat"]["other"]))


STRICT = edge.Timing(min_runs=20, min_s=0.3, max_s=1.0, warmup_max_s=0.1, quiet_wait_s=1)
PATIENT = edge.Timing(min_runs=20, min_s=0.3, max_s=1.0, warmup_max_s=0.1, quiet_wait_s=60)


def test_a_doubtful_measurement_is_repeated_once_when_the_load_has_gone(tmp_path, load):
    load.busy = True
    relief = threading.Timer(2, setattr, (load, "busy", False))
    record, seen = measure_twice(local(tmp_path), linear(tmp_path / "m.onnx"), PATIENT, relief.start)
    assert (seen.count("quiet"), seen.count("job")) == (1, 2)
    assert 1 < record["repeat"]["waited_s"] < 30 and record["repeat"]["not_quiet"] == []
    assert attempts_with("pressure", record) == 1


def test_a_device_that_stays_busy_is_waited_for_no_longer_than_allowed(tmp_path, load):
    load.busy = True
    record, seen = measure_twice(local(tmp_path), linear(tmp_path / "m.onnx"), STRICT, lambda: None)
    assert (seen.count("quiet"), seen.count("job")) == (1, 1)
    assert 1 <= record["repeat"]["waited_s"] < 10
    assert record["repeat"]["not_quiet"] == ["busy", "pressure"] and "pressure" in record["flags"]


def test_a_busy_device_is_waited_for_once_in_a_session_not_for_each_model(tmp_path, load):
    load.busy = True
    with edge.connect(local(tmp_path)) as session:
        enrolment = session.enrol()
        begin = time.monotonic()
        records = session.measure([edge.Job(linear(tmp_path / "m.onnx"))] * 8, STRICT, enrolment=enrolment)
    assert time.monotonic() - begin < 20
    # The thread that tells the load may miss a whole measurement where the machine itself is busy.
    repeats = [record["repeat"] for record in records if record["repeat"]]
    assert len(repeats) > 1
    assert [repeat["waited_s"] > 0 for repeat in repeats] == [True] + [False] * (len(repeats) - 1)
    assert all(repeat["not_quiet"] for repeat in repeats)


def test_a_hot_device_is_measured_again_when_it_has_cooled(tmp_path, load, sysfs, monkeypatch):
    folder = sysfs(JETSON | {"class/thermal/thermal_zone0/temp": 99000})
    monkeypatch.setenv("EDGELOOP_SYS", str(folder))
    device, model, heat = local(tmp_path), linear(tmp_path / "m.onnx"), folder / "class/thermal/thermal_zone0/temp"
    record, _ = measure_twice(device, model, STRICT, lambda: None)
    assert "hot" in record["flags"] and record["repeat"]["not_quiet"] == ["hot"]
    record, _ = measure_twice(device, model, PATIENT, lambda: heat.write_text("60000"))
    assert attempts_with("hot", record) == 1


def spin():
    while True:
        pass


@pytest.fixture
def busy():
    """Twice as many busy processes as there are cores."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=spin, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for process in processes:
        process.start()
    time.sleep(1)
    yield processes
    for process in processes:
        process.kill()
        process.join()


def test_under_load_a_measurement_is_doubtful_and_says_so_and_keeps_its_ratio(tmp_path, busy):
    model = tmp_path / "reference.onnx"
    model.write_bytes(reference_model())
    device = local(tmp_path)
    with edge.connect(device) as session:
        enrolment = session.enrol()
    timing = edge.Timing(quiet_wait_s=1)
    (record,) = measure(device, enrolment, model, timing=timing)
    assert "pressure" in record["flags"]
    assert record["repeat"]["waited_s"] >= 1 and "busy" in record["repeat"]["not_quiet"]
    assert any("doubtful" in remark and "pressure" in remark for remark in edge.remarks(record))
    assert record["ratio"] == pytest.approx(1, rel=0.1)


def test_tensorrt_keeps_its_engines_and_the_last_used_ones_only(tmp_path):
    name, options = runner.with_options(["TensorrtExecutionProvider", "CPUExecutionProvider"], "/engines")[0]
    assert name == "TensorrtExecutionProvider" and options["trt_engine_cache_path"] == "/engines"
    assert runner.with_options(["CPUExecutionProvider"], None) == ["CPUExecutionProvider"]
    assert runner.engine_files(None) == set()
    for age, model in enumerate(("newest", "middle", "oldest")):
        folder = tmp_path / "engines" / model
        folder.mkdir(parents=True)
        (folder / "a.engine").write_bytes(b"x" * 400)
        os.utime(folder, (1000 - age, 1000 - age))
    assert len(runner.engine_files(str(tmp_path / "engines/newest"))) == 1
    runner.trim_engines(str(tmp_path / "engines"), 1000)
    assert sorted(p.name for p in (tmp_path / "engines").iterdir()) == ["middle", "newest"]
    runner.trim_engines(str(tmp_path / "absent"), 1000)
