"""What a service manager does at each start of a service: its cgroup is made anew, then it runs."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.lab.process import forked, wait_until


def restarted(folder: Path, service: Callable[[], str]) -> str:
    """What `service` says, run as the first thing that a new cgroup's process does.

    Called in the service's network namespace, outside of its cgroup, which is removed at the end.
    """
    folder.mkdir()
    try:
        return forked(service, procs=folder / "cgroup.procs")
    finally:
        wait_until(lambda: _removed(folder), f"{folder} is removed")


def restarts(folder: Path, times: int, service: Callable[[], str]) -> Counter[str]:
    """How often `service` said what, one restart after the other; an error's text counts, too."""
    said: Counter[str] = Counter()
    for _ in range(times):
        try:
            said[restarted(folder, service)] += 1
        except OSError as error:
            said[os.strerror(error.errno or 0)] += 1
    return said


def _removed(folder: Path) -> bool:
    """False while the kernel still holds a dying process in it."""
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()
