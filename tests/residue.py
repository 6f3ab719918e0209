"""What a test run may leave behind in the kernel: nothing.

Only what the run itself made is looked for, by the run's number in its name or in its environment.
What others make or remove meanwhile on the same machine, another run among them, is not its fault.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.lab import run
from tests.lab.cgroup import v2_root
from tests.netlab.folder import PLACE

_PATIENCE_S: Final = 2.0


def left_behind(patience_s: float = _PATIENCE_S) -> list[str]:
    """Lines that say what of this run is still there.

    Waits up to `patience_s` for what is still going away (dying cgroups, closing namespaces).
    """
    deadline = time.monotonic() + patience_s
    while True:
        lines = [
            f"{kind} left behind: {each}"
            for kind, read in _KINDS.items()
            for each in sorted(read())
        ]
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def _namespaces() -> Iterator[str]:
    folder = Path("/run/netns")
    names = (path.name for path in folder.iterdir()) if folder.exists() else ()
    yield from filter(run.is_ours, names)


def _cgroups() -> Iterator[str]:
    for folder, _, _ in os.walk(v2_root()):
        if run.is_ours(folder):
            yield folder


def _pins() -> Iterator[str]:
    for folder, folders, files in os.walk("/sys/fs/bpf"):
        yield from filter(run.is_ours, (f"{folder}/{each}" for each in [*folders, *files]))


def _folders() -> Iterator[str]:
    yield from (str(path) for path in PLACE.iterdir() if run.is_ours(path.name))


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if run.is_ours(mounted := line.split()[4]):
            yield mounted


def _processes() -> Iterator[str]:
    mark = f"{run.MARK}={run.number()}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in environment:
            yield f"{command.strip()} [{folder.name}]"


_KINDS: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "network namespace": _namespaces,
    "cgroup": _cgroups,
    "pin": _pins,
    "folder": _folders,
    "mount": _mounts,
    "process": _processes,
}
