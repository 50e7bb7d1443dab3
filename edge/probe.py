# ruff: noqa: UP032, SIM115
# Handed to the device's Python as `-c TEXT ARGUMENTS`, whatever that Python is and has: says in JSON what is there.
import fcntl
import glob
import importlib
import json
import os
import platform
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path[:] = [path for path in sys.path if path]
work_folder, lock_file = (os.path.expanduser(path) for path in sys.argv[1:3])


def version(name):
    try:
        return {"version": importlib.import_module(name).__version__}
    except Exception as error:
        return {"error": "{}: {}".format(type(error).__name__, error)}


def providers():
    try:
        return importlib.import_module("onnxruntime").get_available_providers()
    except Exception:
        return []


def storage():
    folder = work_folder
    while not os.path.exists(folder):
        folder = os.path.dirname(folder) or "."
    usage = os.statvfs(folder)
    return {
        "folder": folder,
        "usable": os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK),
        "free_mb": usage.f_bavail * usage.f_frsize // 1000000,
    }


def lock():
    if not os.path.exists(lock_file):
        folder = os.path.dirname(lock_file)
        comes_with_work_folder = not os.path.exists(folder) and work_folder.startswith(folder + os.sep)
        return {"usable": comes_with_work_folder or os.access(folder, os.W_OK | os.X_OK), "held_by": None}
    try:
        file = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        return {"usable": False, "held_by": None, "error": str(error)}
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return {
            "usable": True,
            "held_by": os.read(file, 200).decode("utf-8", "replace").strip() or "an unknown process",
        }
    finally:
        os.close(file)
    return {"usable": True, "held_by": None}


def governors():
    found = set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            found.add(open(path).read().strip())
        except OSError:
            continue
    return sorted(found)


answer = {
    "event": "probe",
    "python": platform.python_version(),
    "executable": sys.executable,
    "implementation": platform.python_implementation(),
    "machine": platform.machine(),
    "libc": platform.libc_ver(),
    "numpy": version("numpy"),
    "onnxruntime": version("onnxruntime"),
    "providers": providers(),
    "storage": storage(),
    "lock": lock(),
    "governors": governors(),
}
print("\n" + json.dumps(answer), flush=True)
