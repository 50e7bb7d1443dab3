"""A process that ends with its parent: what is started here must not outlive who started it, however that ends."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Looked up once: between fork and exec nothing should be loaded.
_libc = ctypes.CDLL(None)


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel (Linux) send `by` to this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
