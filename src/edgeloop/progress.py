"""How far a stage is: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    iterable: Iterable[Item],
    *,
    total: int,
    label: str,
    unit: str,
    note: Callable[[], str] | None = None,
    lines: int = 20,
) -> Iterator[Item]:
    """The items of `iterable`, told about on stderr as they are finished.

    label: what is done ("train 1a2b3c4d5e6f"). unit: what is counted ("epoch"). note: called after an item,
    says what it came to ("val_rmse 0.081"). A log gets at most `lines` lines, the last item's among them.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True) as bar:
            for item in iterable:
                yield item
                if note is not None:
                    bar.set_postfix_str(note(), refresh=False)
                bar.update()
        return
    start, told = time.perf_counter(), 0
    for done, item in enumerate(iterable, start=1):
        yield item
        # One line each time another share of the whole is done.
        if done == total or done * lines // max(total, 1) > told:
            told = done * lines // max(total, 1)
            spent = time.perf_counter() - start
            said = f", {note()}" if note is not None else ""
            print(f"{label}: {unit} {done}/{total}, {spent:.1f} s{said}", file=sys.stderr, flush=True)
