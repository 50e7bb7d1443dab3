"""A call in a process of its own: what it imports takes no memory in the process that asked."""

import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

# A new interpreter, not a fork: a fork would begin with all that the caller has in memory.
CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from edgeloop import apart
apart.answer()
"""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns, in another process; function and arguments must be picklable.

    An exception comes back as it is, with the traceback of the other process as a note. Raises CalledProcessError
    when that process dies; what it had to say is on stderr.
    """
    request = pickle.dumps(sys.path) + pickle.dumps((function, arguments))
    done = subprocess.run([sys.executable, "-P", "-c", CHILD], input=request, stdout=subprocess.PIPE, check=True)
    result, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result


def answer() -> None:
    """The other end of `call`: the request comes on stdin, the answer goes to stdout."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # what the function prints is no answer
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        result, error = function(*arguments), None
    except Exception as raised:
        raised.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        result, error = None, raised
    answers.write(pickle.dumps((result, error)))
    answers.flush()
