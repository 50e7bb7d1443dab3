# ruff: noqa: UP031, UP036, SIM105
# Handed to the device's Python as `-c TEXT`: receive a bundle, check it, let it test itself, put it into its place.
# Standard library only. Its words to the client are those of edge/wire.py.
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile

sys.path[:] = [path for path in sys.path if path]  # not the working folder: a json.py there is not json
CHECKSUMS = "SHA256SUMS"


class DeviceProblem(Exception):
    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def say(event, **fields):
    print(json.dumps(dict(fields, event=event)), flush=True)


def every_moment(event, timeout_s):
    """Moments until `timeout_s` is over; the client hears `event` every 5 s."""
    begin = said = time.monotonic()
    while time.monotonic() - begin < timeout_s:
        yield
        time.sleep(0.05)
        if time.monotonic() - said > 5:
            said = time.monotonic()
            say(event)


def unpack(data, folder):
    """Unpack the zip and compare each of its files with the checksums that came with it."""
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        bundle.extractall(folder)
    with open(os.path.join(folder, CHECKSUMS)) as file:
        sums = dict(reversed(line.split()) for line in file)
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            if name != CHECKSUMS and hashlib.sha256(file.read()).hexdigest() != sums.get(name):
                raise DeviceProblem("protocol", "the checksum of %s in the bundle is not the one it came with" % name)


def lock(path, timeout_s):
    """The lock of all users of the device (see runner.py): nothing disturbs a measurement."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            os.fchmod(file, 0o666)
        except PermissionError:
            pass  # another user was quicker
    for _ in every_moment("waiting", timeout_s + 0.1):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        os.ftruncate(file, 0)
        os.pwrite(file, b"pid %d, which tests a bundle" % os.getpid(), 0)
        return
    raise DeviceProblem("busy", "%s is held by %s" % (path, os.pread(file, 200, 0).decode(errors="replace").strip()))


def test(folder, providers, deadline_s):
    """Whether the bundle's own test passes here, and what it says."""
    command = [sys.executable, os.path.join(folder, "predict.py"), "--self-test"]
    command += [word for provider in providers for word in ("--provider", provider)]
    with open(os.path.join(folder, ".said"), "w+") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd="/")
        try:
            for _ in every_moment("working", deadline_s):
                if process.poll() is not None:
                    break
            else:
                return False, "the self-test was not done after %g s (deadline_s)" % deadline_s
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read().strip()
    os.unlink(said.name)
    return process.returncode == 0, text or "the self-test ended with status %d, without a word" % process.returncode


def put(new, folder):
    """`new` takes the place of `folder`, which is a bundle, or is not there."""
    old = "%s.%d.old" % (folder, os.getpid())
    if os.path.exists(folder):
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def install(hello):
    folder = os.path.abspath(os.path.expanduser(hello["folder"]))
    if os.path.exists(folder) and not os.path.exists(os.path.join(folder, CHECKSUMS)):
        return say("occupied", folder=folder)
    say("boot")
    data = sys.stdin.buffer.read(hello["size"])
    if hashlib.sha256(data).hexdigest() != hello["sha256"]:
        raise DeviceProblem("protocol", "the bundle arrived damaged")
    new = "%s.%d.tmp" % (folder, os.getpid())
    try:
        os.makedirs(new)
        unpack(data, new)
        lock(hello["lock_file"], hello["lock_timeout_s"])
        passed, said = test(new, hello["providers"], hello["deadline_s"])
        if passed:
            put(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    say("done", passed=passed, said=said, folder=folder)


if sys.version_info < (3, 8):
    sys.exit(say("problem", kind="runtime", message="Python %s is older than 3.8" % sys.version.split()[0]))
try:
    install(json.loads(sys.stdin.buffer.readline().decode()))
except DeviceProblem as problem:
    sys.exit(say("problem", kind=problem.kind, message=str(problem)))
except OSError as error:
    sys.exit(say("problem", kind="storage", message=str(error)))
