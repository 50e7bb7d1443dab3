"""What a stage says: one line on the terminal, the whole story in its log file."""

import logging
import sys
from pathlib import Path


def start(file: str | Path, stage: str) -> logging.Logger:
    """A logger for the stage `stage`. INFO goes to the terminal, everything and any traceback to `file`.

    An exception that ends the script is shown on the terminal by its message alone.
    """
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger(f"edgeloop.{stage}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter(f"{stage:>9}  %(message)s"))
    story = logging.FileHandler(file, mode="w")
    story.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [terminal, story]

    def report(kind, error, trace):
        story.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, str(error), (), (kind, error, trace)))
        print(f"{stage:>9}  {kind.__name__}: {error}\n           The whole story: {file}", file=sys.stderr)

    sys.excepthook = report
    return logger
