"""What a stage says: one line on the terminal, the whole story in its log file."""

import subprocess
import sys

SCRIPT = """
import sys
from edgeloop import log
logger = log.start(sys.argv[1], "measure")
logger.info("one line for the user")
logger.debug("a detail")
if sys.argv[2:]:
    raise RuntimeError("the device is gone")
"""


def say(file, *arguments):
    return subprocess.run([sys.executable, "-c", SCRIPT, file, *arguments], capture_output=True, text=True)


def test_the_terminal_gets_what_concerns_the_user_and_the_file_everything(tmp_path):
    done = say(tmp_path / "logs/measure.log")
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr == "  measure  one line for the user\n"
    story = (tmp_path / "logs/measure.log").read_text()
    assert "INFO one line for the user" in story and "DEBUG a detail" in story


def test_an_error_is_one_message_on_the_terminal_and_a_traceback_in_the_file(tmp_path):
    done = say(tmp_path / "measure.log", "break")
    assert done.returncode == 1
    assert "RuntimeError: the device is gone" in done.stderr and str(tmp_path / "measure.log") in done.stderr
    assert "Traceback" not in done.stderr
    story = (tmp_path / "measure.log").read_text()
    assert "Traceback" in story and "the device is gone" in story


def test_a_new_start_begins_a_new_story(tmp_path):
    say(tmp_path / "measure.log", "break")
    say(tmp_path / "measure.log")
    assert "the device is gone" not in (tmp_path / "measure.log").read_text()
