# ruff: noqa: E402, UP031, SIM105, B904, B905
# The environment comes before the imports; the rest asks for what Python 3.8 lacks.
"""The device's side of a measuring session: one file on the standard library, numpy and onnxruntime.

It is shipped as it is, kept on the device under its sha256, and started by `edge/bootstrap.py`. It reads a request (one
line of JSON) and the files that the device lacks from stdin, and writes events (lines of JSON) to stdout. Whatever else
prints to stdout goes to stderr.

- One process imports onnxruntime and holds the device's lock; every model runs in a fork of it. A fork costs
  milliseconds, a model that crashes takes nothing else with it, and its peak memory is its own.
- The lock is taken after all files have arrived and falls with the process. The process ends by itself when stdin
  closes or the client falls silent (it answers every word with a line). A model that exceeds its deadline fails. Should
  this process itself hang, its watchdog, another fork, kills it.
- Python 3.8 is enough (JetPack 5); everything in /proc and /sys may be absent and is then null.
"""

import os

# Before the import: onnxruntime's Linux wheels report home otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import ctypes
import errno
import fcntl
import gc
import glob
import hashlib
import json
import math
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HEARTBEAT_S = 5.0
BLOCK_MS = 2.0
STABLE = 0.03
WATCH_S = 0.1
ENERGY_S = 0.5
ENERGY_READING_S = 0.01
QUIET_WINDOW_S = 0.5
QUIET_PRESSURE = 0.1
INFRASTRUCTURE_EXIT = 70
# Tests have trees of their own, for boards that are not at hand and for loads that come and go on the spot. PROC is for
# the load alone: everything else of /proc is read there.
SYS, PROC = os.environ.get("EDGELOOP_SYS", "/sys"), os.environ.get("EDGELOOP_PROC", "/proc")


class DeviceProblem(Exception):
    """Something is wrong with the device, not with a model: `kind` tells the client which of its errors to raise."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------- what the machine tells of itself


def read(path):
    """The stripped text of a file of /proc or /sys; None where it is absent, unreadable or empty."""
    try:
        with open(path, errors="replace") as file:
            return file.read().strip("\0\n ") or None
    except OSError:
        return None


def read_int(path):
    text = read(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def kilobytes(path, key):
    """The value of a line `key:  123 kB` in MB; None where there is no such line."""
    for line in (read(path) or "").splitlines():
        if line.startswith(key + ":"):
            return round(int(line.split()[1]) / 1024.0, 3)
    return None


def cpu_model():
    info = {}
    for line in (read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    if "CPU part" in info and "model name" not in info:  # arm: a number instead of a name
        return "implementer {} part {}".format(info.get("CPU implementer", "?"), info["CPU part"])
    return info.get("model name")


def fingerprint(numpy, onnxruntime):
    """What identifies the device and its software: two records with the same fingerprint are comparable."""
    return {
        "arch": platform.machine(),
        "cpu_model": cpu_model(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "memory_mb": kilobytes("/proc/meminfo", "MemTotal"),
        "board": read("/proc/device-tree/model"),
        "l4t": read("/etc/nv_tegra_release"),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "max_khz": read_int("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"),
    }


def thermal_zones():
    """The temperature of each zone in degrees Celsius, and that from which on the kernel slows the machine down (the
    lowest passive trip point); null where a zone does not tell. Linux:
    Documentation/driver-api/thermal/sysfs-api.rst."""
    now, limits = {}, {}
    for zone in sorted(glob.glob(SYS + "/class/thermal/thermal_zone*")):
        name, value = read(zone + "/type") or os.path.basename(zone), read_int(zone + "/temp")
        if name in now:
            name = "%s %s" % (name, os.path.basename(zone)[len("thermal_zone") :])
        trips = glob.glob(zone + "/trip_point_*_type")
        passive = [read_int(trip[: -len("type")] + "temp") for trip in trips if read(trip) == "passive"]
        now[name] = None if value is None else value / 1000.0
        limits[name] = min([trip / 1000.0 for trip in passive if trip and trip > 0], default=None)
    return now, limits


def cooling():
    """The state of whatever slows a processor down to cool it, by name; 0 is at full speed. Fans do not count."""
    found = {}
    for device in sorted(glob.glob(SYS + "/class/thermal/cooling_device*")):
        kind, state = read(device + "/type") or "", read_int(device + "/cur_state")
        if state is not None and re.search("cpufreq|devfreq|throttle|processor", kind, re.IGNORECASE):
            found["%s %s" % (kind, os.path.basename(device)[len("cooling_device") :])] = state
    return found


def power_rails():
    """The files with millivolt and milliampere of each rail of a Jetson's INA3221 monitors, by label. Linux:
    Documentation/hwmon/ina3221.rst."""
    rails = {}
    for chip in sorted(glob.glob(SYS + "/class/hwmon/hwmon*")):
        if not (read(chip + "/name") or "").startswith("ina3221"):
            continue
        for label in sorted(glob.glob(chip + "/in*_label")):
            number = os.path.basename(label)[2 : -len("_label")]
            files = chip + "/in%s_input" % number, chip + "/curr%s_input" % number
            if None not in map(read_int, files):
                rails[read(label) or number] = files
    return rails


def watts(files):
    """The power of one rail now; None where it cannot be read any longer."""
    millivolt, milliampere = map(read_int, files)
    return None if None in (millivolt, milliampere) else millivolt * milliampere / 1e6


def energy_counters():
    """The RAPL counters of x86 that can be read: {domain: (file, range in uJ)}. Linux:
    Documentation/power/powercap/powercap.rst. Since 2020 only root may read them, unless somebody has seen to it."""
    found = {}
    for domain in sorted(glob.glob(SYS + "/class/powercap/intel-rapl:?")):
        if read_int(domain + "/energy_uj") is not None:
            name = read(domain + "/name") or os.path.basename(domain)
            found[name] = (domain + "/energy_uj", read_int(domain + "/max_energy_range_uj") or 2**32)
    return found


def clock_khz():
    """The clock of the first core that this process may use, and of the GPU (Jetson); null where they do not tell."""
    core = "%s/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq" % (SYS, min(os.sched_getaffinity(0)))
    for device in sorted(glob.glob(SYS + "/class/devfreq/*")):
        if re.search("gpu|ga10b|gv11b|gp10b", os.path.basename(device)):  # Orin, Xavier, TX2
            hertz = read_int(device + "/cur_freq")
            return read_int(core), None if hertz is None else hertz // 1000
    return read_int(core), None


def cpu_pressure_us():
    """For how long, since the boot, some process waited for a CPU; None where the kernel does not count it (PSI)."""
    total = (read(PROC + "/pressure/cpu") or "").split("\n")[0].rpartition("total=")[2]
    return int(total) if total.isdigit() else None


def telemetry():
    """Temperatures, clocks, pressure, memory and power at this moment; null where the machine does not tell."""
    core = "%s/devices/system/cpu/cpu%d/" % (SYS, min(os.sched_getaffinity(0)))
    (thermal, limits), (cpu, gpu) = thermal_zones(), clock_khz()
    return {
        "time_s": time.time(),
        "load_1min": os.getloadavg()[0],
        "cpu_pressure_us": cpu_pressure_us(),
        "memory_available_mb": kilobytes("/proc/meminfo", "MemAvailable"),
        "thermal_c": thermal or None,
        "thermal_limit_c": limits or None,
        "power_w": {rail: watts(files) for rail, files in power_rails().items()} or None,
        "rapl_uj": {name: read_int(file) for name, (file, _) in energy_counters().items()} or None,
        "governor": read(core + "cpufreq/scaling_governor"),
        "cpu_khz": cpu,
        "gpu_khz": gpu,
        "throttle_count": read_int(core + "thermal_throttle/core_throttle_count"),
        "cooling_state": cooling() or None,
        "rpi_throttled": read(SYS + "/devices/platform/soc/soc:firmware/get_throttled"),
    }


def throttled(reading):
    """Whether the machine runs slower than it could at the moment of a reading: too hot, or too little voltage."""
    # Raspberry Pi: the low bits tell of now, the high ones of the time since the boot.
    pi = int(reading["rpi_throttled"] or "0", 16) & 0xF
    return bool(pi or any((reading["cooling_state"] or {}).values()))


def too_hot(reading):
    """The zones that are as hot as their limit."""
    limits = reading["thermal_limit_c"] or {}
    found = reading["thermal_c"] or {}
    return sorted(zone for zone in found if None not in (found[zone], limits[zone]) and found[zone] >= limits[zone])


class Watch:
    """Readings while a model is timed, one every WATCH_S at most, and what came out of them in all."""

    def __init__(self):
        self.readings, self.last = [], 0.0

    def __call__(self):
        if time.monotonic() - self.last >= WATCH_S:
            self.readings.append(telemetry())
            self.last = time.monotonic()

    def summary(self):
        def column(key):
            return [reading[key] for reading in self.readings if reading[key] is not None]

        def by_name(key, of):
            rows = column(key)
            values = {name: [row[name] for row in rows if row.get(name) is not None] for name in (rows or [{}])[0]}
            return {name: of(found) for name, found in values.items() if found} or None

        return {
            "readings": len(self.readings),
            "thermal_max_c": by_name("thermal_c", max),
            "power_mean_w": by_name("power_w", lambda found: round(sum(found) / len(found), 4)),
            "cpu_min_khz": min(column("cpu_khz"), default=None),
            "cpu_max_khz": max(column("cpu_khz"), default=None),
            "gpu_min_khz": min(column("gpu_khz"), default=None),
            "gpu_max_khz": max(column("gpu_khz"), default=None),
            "memory_available_min_mb": min(column("memory_available_mb"), default=None),
            "throttled": any(map(throttled, self.readings)),
            "too_hot": sorted({zone for reading in self.readings for zone in too_hot(reading)}),
        }


class EnergyMeter:
    """The energy that the device has taken up since the first reading, in J.

    From a Jetson's INA3221 monitors: their power, integrated over the readings (trapezoids). The whole board is the
    rail of its input where there is one (VDD_IN, POM_5V_IN), otherwise all rails together, as on AGX boards, which have
    none. Else from RAPL: the counters of the processor packages, which wrap around. `source` is None where there is
    neither.
    """

    def __init__(self):
        rails, counters = power_rails(), energy_counters()
        whole = [name for name in rails if name in ("VDD_IN", "POM_5V_IN")]
        self.rails = {name: rails[name] for name in whole or rails}
        packages = {name: counters[name] for name in counters if name.startswith("package")}
        self.counters = {} if self.rails else packages
        self.source = "ina3221" if self.rails else "rapl" if self.counters else None
        self.domains = sorted(self.rails or self.counters)
        self.joule, self.last, self.broken = 0.0, None, False

    def read(self):
        now = time.perf_counter()
        if self.rails:
            values = [watts(files) for files in self.rails.values()]
        else:
            values = [read_int(file) for file, _ in self.counters.values()]
        self.broken = self.broken or None in values
        if self.last is not None and not self.broken:
            before, earlier = self.last
            if self.rails:
                self.joule += (now - before) * (sum(values) + sum(earlier)) / 2
            else:
                for value, old, (_, size) in zip(values, earlier, self.counters.values()):
                    self.joule += (value - old if value >= old else value + size - old) / 1e6
        self.last = now, values


def measure_energy(step):
    """The energy of one call of `step`, run again and again with nothing in between for ENERGY_S; None without a
    sensor, or when one falls silent. What the machine takes when it idles is part of it."""
    meter = EnergyMeter()
    if meter.source is None:
        return None
    runs, started = 0, time.perf_counter()
    meter.read()
    read_at = started
    while runs < 2 or time.perf_counter() - started < ENERGY_S:
        step()
        runs += 1
        if time.perf_counter() - read_at >= ENERGY_READING_S:
            meter.read()
            read_at = time.perf_counter()
    meter.read()
    if meter.broken or meter.joule <= 0:
        return None
    seconds = meter.last[0] - started
    return {
        "source": meter.source,
        "domains": meter.domains,
        "runs": runs,
        "seconds": round(seconds, 6),
        "power_mean_w": round(meter.joule / seconds, 6),
        "energy_mj_per_inference": round(1e3 * meter.joule / runs, 6),
    }


def idle_cores(usable):
    """For how many seconds in all the cores `usable` were idle since the boot; None where /proc does not tell."""
    ticks = []
    for line in (read(PROC + "/stat") or "").splitlines():
        name, *columns = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in usable:
            ticks.append(int(columns[3]) + int(columns[4]))  # idle, and waiting for a disk
    return sum(ticks) / float(os.sysconf("SC_CLK_TCK")) if ticks else None


def wait_until_quiet(limit_s, settings):
    """Wait until nothing is left to make a measurement doubtful: as many idle cores as the model has threads, no
    process that waits for a CPU, no throttling, no zone too hot. Gives the seconds waited, and what keeps the device
    from being quiet after `limit_s` (empty when it is quiet). It looks at least once."""
    cores = settings["cpus"] or os.sched_getaffinity(0)
    needed = 0.9 * min(settings["threads"], len(cores))
    started = beat = time.monotonic()
    while True:
        began, idle, pressure = time.monotonic(), idle_cores(cores), cpu_pressure_us()
        while time.monotonic() - began < QUIET_WINDOW_S:
            if CLIENT.gone(0.05):
                os._exit(INFRASTRUCTURE_EXIT)
        elapsed, now, reasons = time.monotonic() - began, telemetry(), []
        if idle is not None and (idle_cores(cores) - idle) / elapsed < needed:
            reasons.append("busy")
        if pressure is not None and now["cpu_pressure_us"] - pressure > 1e6 * QUIET_PRESSURE * elapsed:
            reasons.append("pressure")
        if throttled(now):
            reasons.append("throttled")
        if too_hot(now):
            reasons.append("hot")
        waited_s = time.monotonic() - started
        if not reasons or waited_s >= limit_s:
            return waited_s, reasons
        if time.monotonic() - beat >= CLIENT.beat_s:
            beat = time.monotonic()
            emit("waiting", waited_s=waited_s)


# ---------------------------------------------------------------- one model, in its own process


class Model:
    """A loaded ONNX model with inputs that were made beforehand; `step()` runs it once and gives nanoseconds."""

    def __init__(self, numpy, onnxruntime, path, settings, batch_size=1, shapes=None):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # On x86 without VNNI sums of 8-bit products saturate otherwise; elsewhere it changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        engines = settings["engine_folder"] if "TensorrtExecutionProvider" in settings["use_providers"] else None
        before = engine_files(engines)
        start = time.perf_counter()
        providers = with_options(settings["use_providers"], engines)
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.load_s = time.perf_counter() - start
        self.numpy, self.onnxruntime = numpy, onnxruntime
        self.providers = self.session.get_providers()
        self.inputs = self._make_inputs(batch_size, shapes or {})
        self.batch_size = int(next((a.shape[0] for a in self.inputs.values() if a.ndim), 1))
        self.step = self._make_step()
        first_run_s = self.step() / 1e9  # TensorRT builds its engine here where a dimension is symbolic
        # None: nothing to build. Where the engine came from the cache, what is left of `load_s` is reading it.
        built = engines is not None and engine_files(engines) - before
        self.engine_build_s = self.load_s + first_run_s if built else None

    def _make_inputs(self, batch_size, shapes):
        """Inputs of the model's own types: bytes over the full range, floats normal, other integers 0 or 1
        (indices and masks stay valid). A symbolic dimension is the batch size where it comes first, otherwise 1."""
        random = self.numpy.random.default_rng(0)
        inputs = {}
        declared = self.session.get_inputs()
        unknown = sorted(set(shapes) - {i.name for i in declared})
        if unknown:
            raise ValueError(f"no input {unknown}; the model's inputs are {[i.name for i in declared]}")
        for entry in declared:
            shape = list(shapes.get(entry.name) or [])
            if not shape:
                shape = [d if isinstance(d, int) and d > 0 else None for d in entry.shape]
                if batch_size != 1 and shape and shape[0] not in (None, batch_size):
                    text = "batch size {} asked, but the first dimension of input {!r} is fixed at {}"
                    raise ValueError(text.format(batch_size, entry.name, shape[0]))
                shape = [(batch_size if i == 0 else 1) if d is None else d for i, d in enumerate(shape)]
            kind = entry.type[len("tensor(") : -1] if entry.type.startswith("tensor(") else entry.type
            if kind in ("uint8", "int8"):
                low, high = (0, 256) if kind == "uint8" else (-128, 128)
                inputs[entry.name] = random.integers(low, high, shape).astype(kind)
            elif kind in ("float", "double", "float16"):
                kind = {"float": "float32", "double": "float64"}.get(kind, kind)
                inputs[entry.name] = self.numpy.asarray(random.standard_normal(shape)).astype(kind)
            elif kind in ("uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"):
                inputs[entry.name] = self.numpy.asarray(random.integers(0, 2, shape)).astype(kind)
            else:
                raise ValueError(f"input {entry.name!r} is of type {entry.type}, which cannot be made up")
        return inputs

    def _make_step(self):
        """Bound inputs and outputs: the dictionaries of `run` cost 3 us a call, 6 % of a 50 us model. An input goes to
        the accelerator as it is bound, before the clock starts. Outputs are bound to host memory: the time includes
        their copy, and the clock cannot stop before the accelerator is done."""
        binding = self.session.io_binding()
        for name, array in self.inputs.items():
            binding.bind_cpu_input(name, array)
        for entry in self.session.get_outputs():
            binding.bind_output(entry.name, "cpu")
        binding.synchronize_inputs()
        run, clock = self.session.run_with_iobinding, time.perf_counter_ns
        if self.providers == ["CPUExecutionProvider"]:

            def step():
                start = clock()
                run(binding)
                return clock() - start
        else:

            def step():
                start = clock()
                run(binding)
                binding.synchronize_outputs()
                return clock() - start

        return step

    def outputs(self, clips):
        """The first output for each clip, uint8 [n, T, H, W], as a list of n flat lists of floats; None for what is not
        finite.

        A model with fewer frames than the clips gets their centre window; a model with a fixed batch gets full batches,
        the last one filled up with its last clip."""
        numpy = self.numpy
        (name, sample), *others = self.inputs.items()
        if others:
            raise ValueError(f"clips fit models with one input; this one has {list(self.inputs)}")
        if sample.ndim != 4 or sample.shape[2:] != clips.shape[2:] or sample.shape[1] > clips.shape[1]:
            raise ValueError(f"the model's input {sample.shape} does not fit clips of shape {clips.shape}")
        first = (clips.shape[1] - sample.shape[1]) // 2
        window = clips[:, first : first + sample.shape[1]]
        rows = []
        for start in range(0, len(window), len(sample)):
            batch = window[start : start + len(sample)]
            count = len(batch)
            batch = numpy.concatenate([batch, numpy.repeat(batch[-1:], len(sample) - count, axis=0)])
            output = self.session.run(None, {name: numpy.ascontiguousarray(batch).astype(sample.dtype)})[0]
            flat = numpy.asarray(output, dtype=numpy.float64).reshape(len(sample), -1)[:count]
            rows += [[v if math.isfinite(v) else None for v in row] for row in flat.tolist()]
        return rows


def with_options(providers, engine_folder):
    """`providers` as onnxruntime takes them. TensorRT keeps its engines, which take minutes to build on a small board,
    in `engine_folder` (onnxruntime's documentation of the TensorRT provider)."""
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": engine_folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": engine_folder,
    }
    return [(name, options) if name == "TensorrtExecutionProvider" else name for name in providers]


def engine_files(folder):
    """The engines in a folder of TensorRT's cache, with their times: one that was built anew counts as another."""
    return {(path, os.stat(path).st_mtime_ns) for path in glob.glob((folder or os.devnull) + "/*.engine")}


def trim_engines(folder, limit_bytes):
    """Keep the engines of the models used last, at most `limit_bytes` of them."""
    models = []
    for entry in os.scandir(folder) if os.path.isdir(folder) else []:
        size = sum(os.path.getsize(file) for file in glob.glob(entry.path + "/*"))
        models.append((entry.stat().st_mtime, size, entry.path))
    for _, size, path in sorted(models, reverse=True):
        limit_bytes -= size
        if limit_bytes < 0:
            shutil.rmtree(path)


def interleave(model, reference, timing, watch):
    """Warm up, then time the model and the reference in turns; dict with all kept samples in ns.

    The warm-up ends when two windows agree. It has two even where one takes longer than all its time: a model of a
    second would always be found cold, and measured twice for it.

    The turns are blocks of about `BLOCK_MS`, and the first run of a block is thrown away: it finds the other's data in
    the caches. Tried on a 50 us and a 4 ms model, ten repetitions, two cores with four busy processes: strict
    alternation reads the small model 4.6 % high (cold caches) and scatters the other by 15 %; blocks of 0.5, 1, 2, 5
    and 20 ms scatter the ratio by 0.29, 0.04, 0.06, 0.10, 0.06 % (50 us) and 0.3, 0.2, 0.3, 0.3, 0.6 % (4 ms). So any
    block of 1 to 5 ms will do. The thread's CPU time is kept beside each run: under load, a model that outlasts the
    scheduler's slice (about 3 ms) is interrupted in every single run, and then even its fifth percentile is up to twice
    the truth.
    """
    first = [(model.step(), reference.step()) for _ in range(2)][1]  # the very first runs allocate
    warm = 2
    started, previous = time.perf_counter(), None
    while True:
        sizes = [_block(first[0], first[0]), _block(first[1], first[0])]
        window_start, window = time.perf_counter(), ([], [])
        while not window[0] or time.perf_counter() - window_start < 0.02:
            for samples, step, size in zip(window, (model.step, reference.step), sizes):
                samples += _run_block(step, size)
        cycle_s = time.perf_counter() - window_start
        warm += len(window[0])
        over = previous is not None and time.perf_counter() - started + cycle_s > timing["warmup_max_s"]
        # Minima: a median is moved by every other process, and the machine would never be found stable under load.
        first = min(window[0]), min(window[1])
        stable = previous is not None and all(abs(a / b - 1) < STABLE for a, b in zip(first, previous))
        if stable or over:
            break
        previous = first

    samples, cpu, references, thrown = [], [], [], 0
    started = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - started
        if len(samples) >= timing["min_runs"] and elapsed >= timing["min_s"]:
            break
        if len(samples) >= timing["min_runs_slow"] and elapsed >= timing["max_s"]:
            break
        watch()  # the first run of a block, which is thrown away, finds the caches as it left them
        references += _run_block(reference.step, sizes[1])
        block = _run_block(model.step, sizes[0], cpu)
        samples += block
        thrown += sizes[0] - len(block)
    return {
        "samples_ns": samples,
        "reference_samples_ns": references,
        "cpu_ns": cpu,
        "warmup_runs": warm,
        "discarded_runs": thrown,
        "stable": bool(stable),
    }


def _block(run_ns, model_ns):
    """Runs in a block: about BLOCK_MS, for the reference at least 5 % of a slow model's run, so that it has samples
    enough."""
    return max(1, math.ceil(max(BLOCK_MS * 1e6, 0.05 * model_ns) / run_ns)) + (1 if run_ns < BLOCK_MS * 1e6 else 0)


def _run_block(step, size, cpu=None):
    """Times of the runs of one block, without the first; the thread's CPU time of the same runs is appended to
    `cpu`."""
    if cpu is None:
        times = [step() for _ in range(size)]
        return times[1:] if size > 1 else times
    times, clock, cpu_times = [], time.thread_time_ns, []
    for _ in range(size):
        start = clock()
        times.append(step())
        cpu_times.append(clock() - start)
    cpu += cpu_times[1:] if size > 1 else cpu_times
    return times[1:] if size > 1 else times


def reset_peak():
    """Start the peak of this process's resident memory anew; the present resident size in MB, None where not known."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # then the peak is that since the fork: still this model's own
    return kilobytes("/proc/self/status", "VmRSS")


def run_job(numpy, onnxruntime, job, settings):
    """What one forked process does: load the reference, then the model, time them, run the clips."""
    if settings["cpus"]:
        os.sched_setaffinity(0, settings["cpus"])
    reference_settings = dict(settings, use_providers=["CPUExecutionProvider"], threads=1, engine_folder=None)
    try:
        reference = Model(numpy, onnxruntime, job["reference_path"], reference_settings)
        for _ in range(20):
            reference.step()
    except Exception as error:
        raise DeviceProblem("runtime", "the reference model does not run: %s" % (error,))
    result = {"telemetry": {"before": telemetry()}}
    before_mb = reset_peak()
    model, watch = reference, Watch()
    if job["model_path"]:
        if "TensorrtExecutionProvider" in settings["use_providers"]:
            os.makedirs(settings["engine_folder"], 0o700, exist_ok=True)
            os.utime(settings["engine_folder"])
        model = Model(numpy, onnxruntime, job["model_path"], settings, job["timing"]["batch_size"], job["shapes"])
    gc.collect()
    gc.disable()
    result.update(interleave(model, reference, job["timing"], watch))
    result["energy"] = measure_energy(model.step)
    gc.enable()
    result["telemetry"]["during"] = watch.summary()
    result["telemetry"]["after"] = telemetry()
    peak_mb = kilobytes("/proc/self/status", "VmHWM")
    result.update(
        load_s=model.load_s,
        engine_build_s=model.engine_build_s,
        providers=model.providers,
        batch_size=model.batch_size,
        process_peak_mb=peak_mb,
        peak_memory_mb=None if None in (peak_mb, before_mb) else max(0.0, round(peak_mb - before_mb, 3)),
        outputs=None,
    )
    if job["clips_path"]:
        result["outputs"] = model.outputs(numpy.load(job["clips_path"], mmap_mode="r"))
    return result


def child(numpy, onnxruntime, job, settings, pipe):
    """The body of a forked process; never returns."""
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the holder of the lock
    except (OSError, AttributeError):
        pass  # not Linux's libc: the alarm below remains
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(settings["deadline_s"]) + 5)
    try:
        answer = {"ok": run_job(numpy, onnxruntime, job, settings)}
    except DeviceProblem as problem:
        answer = {"problem": problem.kind, "reason": str(problem)}
    except Exception as error:
        text = str(error).replace(job["model_path"] or "\0", "the model")
        answer = {"reason": "%s: %s" % (type(error).__name__, " ".join(text.split())[:1000])}
    with os.fdopen(pipe, "w") as file:
        json.dump(answer, file)
    sys.stderr.flush()
    os._exit(0)


# ---------------------------------------------------------------- the lock, the cache, the conversation


def emit(event, **fields):
    """Tell the client. A pipe that says it is writable takes this many bytes at once without blocking."""
    data = (json.dumps(dict(fields, event=event)) + "\n").encode()
    try:
        while data:
            if not select.select([], [OUT], [], CLIENT.silence_s)[1]:
                os._exit(INFRASTRUCTURE_EXIT)  # nobody takes it: the way to the client is gone
            data = data[os.write(OUT, data[: select.PIPE_BUF]) :]
            CLIENT.pet_watchdog()
    except BrokenPipeError:
        os._exit(INFRASTRUCTURE_EXIT)  # the client is gone: nobody is left to tell


class Client:
    """The other end. It answers whatever it is told with a line: its silence means that the way to it is gone, however
    long the device's sshd goes on hoping."""

    def __init__(self, silence_s):
        self.watchdog = None
        self.listen(silence_s)

    def listen(self, silence_s):
        """Take it for gone after so many seconds of silence, and say something often enough."""
        self.silence_s, self.beat_s = silence_s, min(HEARTBEAT_S, silence_s / 3)
        self.heard = time.monotonic()

    def pet_watchdog(self):
        """Whatever gets on with telling the client does not hang."""
        if self.watchdog is not None:
            try:
                os.write(self.watchdog, b".")
            except BrokenPipeError:
                self.watchdog = None  # somebody has killed it

    def gone(self, wait_s):
        """Wait at most `wait_s` for a word from it; whether it is gone."""
        if select.select([0], [], [], wait_s)[0]:
            if not os.read(0, 1 << 12):
                return True
            self.heard = time.monotonic()
        return time.monotonic() - self.heard > self.silence_s

    def expect(self, awaited):
        """Until the next call, silence ends reading from stdin with a DeviceProblem; `awaited` False: no longer."""
        signal.setitimer(signal.ITIMER_REAL, self.silence_s if awaited else 0)
        self.heard = time.monotonic()


def on_alarm(number, frame):
    raise DeviceProblem("protocol", "the client said nothing for %g s" % CLIENT.silence_s)


def start_watchdog():
    """A process that kills this one when it hangs, so that it cannot hold the device's lock for ever. The pipe into
    which a byte is to be written with every word to the client."""
    hearing, alive = os.pipe()
    runner = os.getpid()
    if os.fork() == 0:
        for descriptor in (0, alive, OUT):
            os.close(descriptor)
        while select.select([hearing], [], [], 4 * CLIENT.beat_s)[0]:
            if not os.read(hearing, 1 << 12):
                os._exit(0)  # it has ended
        os.kill(runner, signal.SIGKILL)
        os._exit(0)
    os.close(hearing)
    return alive


class Cache:
    """Files kept by their sha256 in `folder`, at most `limit_mb` of them, the longest unused out first.

    Every session holds a shared lock on the folder, and only who can have it alone throws out: nobody loses a file in
    use."""

    def __init__(self, folder, limit_mb):
        self.folder, self.limit_bytes = folder, limit_mb * 1_000_000
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self.lock = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_SH)
        except OSError as error:
            raise DeviceProblem("storage", "the work folder %s cannot be used: %s" % (folder, error))

    def path(self, sha256):
        return os.path.join(self.folder, sha256)

    def has(self, sha256):
        """Whether the file is here, whole; marks it as used."""
        try:
            with open(self.path(sha256), "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != sha256:
                    return False
            os.utime(self.path(sha256))
            return True
        except FileNotFoundError:
            return False

    def receive(self, stream, sha256, size):
        """Take a file from the client. What arrives damaged or not at all leaves nothing here."""
        beat = time.monotonic()
        temporary = "%s.%d.tmp" % (self.path(sha256), os.getpid())
        hashed = hashlib.sha256()
        try:
            with open(temporary, "wb") as file:
                left = size
                while left:
                    CLIENT.expect(True)
                    data = stream.read1(min(left, 1 << 20))
                    if time.monotonic() - beat >= CLIENT.beat_s:
                        beat = time.monotonic()
                        emit("receiving")  # what the client has sent may be on its way for long
                    if not data:
                        raise DeviceProblem("protocol", "the upload ended %d bytes short" % left)
                    hashed.update(data)
                    file.write(data)
                    left -= len(data)
            if hashed.hexdigest() != sha256:
                raise DeviceProblem("protocol", "file %s arrived damaged" % sha256[:12])
            os.replace(temporary, self.path(sha256))
        except OSError as error:
            raise DeviceProblem("storage", "writing to the work folder %s failed: %s" % (self.folder, error))
        finally:
            CLIENT.expect(False)
            if os.path.exists(temporary):
                os.unlink(temporary)

    def trim(self):
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another session is at work: it trims when it ends
        files = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".tmp"):
                os.unlink(entry.path)  # of a session that was killed: this one is alone
            elif entry.name != ".lock" and entry.is_file():
                files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit_bytes:
                break
            os.unlink(path)
            total -= size


def open_lock(path):
    try:
        # Without O_CREAT first: in a sticky folder the kernel may refuse to "create" what another user owns
        # (fs.protected_regular).
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(lock, 0o666)
        except PermissionError:
            pass  # another user was quicker; the file is theirs and they set its mode
    return lock


def take_lock(path, timeout_s, device):
    """The exclusive lock on the device, common to all of its users; it falls when this process ends."""
    try:
        lock = open_lock(path)
    except OSError as error:
        raise DeviceProblem("storage", "the lock file %s cannot be used: %s" % (path, error))
    started = beat = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        now = time.monotonic()
        if now - started >= timeout_s:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            raise DeviceProblem("busy", "%s is held by %s" % (path, holder or "an unknown process"))
        if now - beat >= CLIENT.beat_s:
            beat = now
            emit("waiting", waited_s=now - started)
        if CLIENT.gone(0.05):
            os._exit(INFRASTRUCTURE_EXIT)
    note = "pid %d since %s for device %r" % (os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), device)
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, note.encode(), 0)
    except OSError:
        pass  # a full disk: those who wait are not told by whom the lock is held, but it is
    emit("locked", waited_s=time.monotonic() - started)
    return lock


def supervise(pid, pipe, deadline_s):
    """What the forked process answered, or why it did not. Ends everything when the client is gone."""
    data, started, beat = b"", time.monotonic(), time.monotonic()
    while True:
        now = time.monotonic()
        ready = select.select([0, pipe], [], [], max(0.0, min(CLIENT.beat_s, started + deadline_s - now)))[0]
        if pipe in ready:
            piece = os.read(pipe, 1 << 16)
            data += piece
            if not piece:
                break
        if CLIENT.gone(0):
            os.kill(pid, signal.SIGKILL)
            os._exit(INFRASTRUCTURE_EXIT)
        now = time.monotonic()
        if now - started >= deadline_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"reason": "deadline: not done after %g s on the device" % deadline_s}
        if now - beat >= CLIENT.beat_s:
            beat = now
            emit("working")
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (out of memory?)" if number == signal.SIGKILL else ""
        return {"reason": "crashed on the device: signal %d, %s%s" % (number, signal.Signals(number).name, hint)}
    try:
        return json.loads(data.decode())
    except ValueError:
        return {"reason": "ended on the device without an answer, exit status %d" % os.WEXITSTATUS(status)}


def receive_files(cache, stream, request):
    """Those of the request's files that were needed, in the order in which the client says they come."""
    CLIENT.expect(True)
    for sha256 in json.loads(stream.readline().decode())["sending"]:
        cache.receive(stream, sha256, request["files"][sha256])
    CLIENT.expect(False)


def install(cache, order):
    """A virtual environment of `order["packages"]` in `order["folder"]`, out of wheels alone. It is made beside the
    folder and then put in its place: a half of it is never used."""
    folder = os.path.expanduser(order["folder"])
    making, wheels = folder + ".new", folder + ".wheels"
    try:
        for leftover in (making, wheels):
            shutil.rmtree(leftover, ignore_errors=True)
        os.makedirs(wheels)
        for name, sha256 in order["wheels"].items():
            try:
                os.link(cache.path(sha256), os.path.join(wheels, name))
            except OSError:  # another file system, or one without links
                shutil.copy(cache.path(sha256), os.path.join(wheels, name))
        run([sys.executable, "-m", "venv", "--without-pip", making])
        python = os.path.join(making, "bin", "python")
        (pip,) = glob.glob(os.path.join(glob.escape(wheels), "pip-*.whl"))
        offline = ["--no-index", "--no-cache-dir", "--disable-pip-version-check", "--find-links", "."]
        run([python, os.path.join(pip, "pip"), "install", "--quiet", *offline, *order["packages"]], wheels)
        run([python, "-c", "import numpy, onnxruntime"])
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(making, folder)
    except OSError as error:
        raise DeviceProblem("storage", "%s: %s" % (folder, error))
    finally:
        for leftover in (making, wheels):
            shutil.rmtree(leftover, ignore_errors=True)


def run(command, folder=None):
    """Run a step of the installation; DeviceProblem with its last words when it fails, an end when the client goes."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder)
        while process.poll() is None:
            emit("working")
            if CLIENT.gone(min(1.0, CLIENT.beat_s)):
                process.kill()
                process.wait()
                raise DeviceProblem("protocol", "the client is gone")
        if process.returncode:
            said.seek(0)
            text = " ".join(said.read().decode(errors="replace").split())[-1000:]
            raise DeviceProblem("install", "%s ended with %d: %s" % (command[0], process.returncode, text))


def serve(stream):
    """One request, from its first line to the last event."""
    CLIENT.expect(True)
    request = json.loads(stream.readline().decode())
    CLIENT.expect(False)
    settings = request["settings"]
    CLIENT.listen(settings["silence_timeout_s"])
    cache = Cache(os.path.expanduser(settings["work_folder"]), settings["cache_mb"])
    emit("need", files=[f for f in sorted(request["files"]) if not cache.has(f)])
    if "install" in request:
        receive_files(cache, stream, request)
        install(cache, request["install"])
        emit("done")
        return
    try:
        import numpy
        import onnxruntime
    except Exception as error:  # ImportError, or whatever a broken installation raises
        text = "%s (Python %s, %s)" % (error, platform.python_version(), sys.executable)
        raise DeviceProblem("runtime", text)
    onnxruntime.set_default_logger_severity(3)
    available = onnxruntime.get_available_providers()
    settings["use_providers"] = [p for p in settings["providers"] if p in available]
    if not settings["use_providers"]:
        text = "none of the providers %s is available; onnxruntime %s has %s"
        raise DeviceProblem("runtime", text % (settings["providers"], onnxruntime.__version__, available))
    missing_cpus = sorted(set(settings["cpus"] or []) - os.sched_getaffinity(0))
    if missing_cpus:
        allowed = sorted(os.sched_getaffinity(0))
        raise DeviceProblem("runtime", "cpus %s cannot be used; this user may use %s" % (missing_cpus, allowed))
    receive_files(cache, stream, request)

    CLIENT.watchdog = start_watchdog()
    lock = take_lock(settings["lock_file"], settings["lock_timeout_s"], request["device"])
    quiet_s = request.get("quiet_wait_s")
    emit("fingerprint", fingerprint=fingerprint(numpy, onnxruntime))
    engines, reasons = os.path.join(cache.folder, "engines"), []
    for index, job in enumerate(request["jobs"]):
        settings["engine_folder"] = os.path.join(engines, job.get("model") or "reference")
        for role in ("model", "reference", "clips"):
            job[role + "_path"] = cache.path(job[role]) if job.get(role) else None
        if quiet_s is not None:
            waited_s = 0.0
            if not reasons:  # else the time is over, and was in vain
                waited_s, reasons = wait_until_quiet(quiet_s, settings)
                quiet_s = max(0.0, quiet_s - waited_s)
            emit("quiet", index=index, waited_s=waited_s, reasons=reasons)
            if reasons:
                continue
        started = time.monotonic()
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receiving)
            for descriptor in filter(None, (lock, CLIENT.watchdog, OUT)):
                os.close(descriptor)
            child(numpy, onnxruntime, job, settings, sending)
        os.close(sending)
        answer = supervise(pid, receiving, settings["deadline_s"])
        os.close(receiving)
        if "problem" in answer:
            raise DeviceProblem(answer["problem"], answer["reason"])
        emit("job", index=index, device_s=time.monotonic() - started, **answer)
    os.close(lock)
    cache.trim()
    trim_engines(engines, settings["cache_mb"] * 1_000_000)
    emit("done")


def main():
    global OUT
    OUT = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with the events
    signal.signal(signal.SIGALRM, on_alarm)
    try:
        serve(sys.stdin.buffer)
    except DeviceProblem as problem:
        emit("problem", kind=problem.kind, message=str(problem))
        return INFRASTRUCTURE_EXIT
    except Exception as error:
        emit("problem", kind="protocol", message="%s: %s" % (type(error).__name__, error))
        raise
    return 0


OUT = 1
CLIENT = Client(silence_s=60.0)  # until the request says how long

if __name__ == "__main__":
    sys.exit(main())
