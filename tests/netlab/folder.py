"""Where a laboratory's servers keep their files."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab import run

#: Short, for the unix sockets in it.
PLACE: Final = Path("/tmp")
_numbers: Final = itertools.count(1)


@contextmanager
def lab_folder() -> Iterator[Path]:
    """A folder that carries the run's number, removed at the end. Servers' users may enter it."""
    folder = PLACE / run.name(run.LAB, next(_numbers))
    folder.mkdir(mode=0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
