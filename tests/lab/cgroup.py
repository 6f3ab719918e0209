"""Control groups of our own, and processes in them."""

import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import pytest

from tests.lab import run
from tests.lab.netns import NetNs
from tests.lab.process import forked, wait_until

R = TypeVar("R")
_numbers: Final = itertools.count(1)

# A shell moves itself before it becomes the command: not one system call of the command is outside.
_ENTER: Final = 'echo 0 >"$0" && exec "$@"'


def v2_root() -> Path:
    """Where the cgroup v2 hierarchy is mounted (in hybrid set-ups not /sys/fs/cgroup)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise AssertionError("no cgroup v2 hierarchy is mounted")


class Cgroup:
    """A cgroup; `close()` ends the processes in it and removes it with all its children."""

    def __init__(self, label: str = "", *, path: Path | None = None, new: bool = True) -> None:
        self.path = path or v2_root() / run.name(run.LAB, next(_numbers), label)
        if new:
            if os.geteuid():
                pytest.skip("only root makes cgroups")
            self.path.mkdir()
        self.procs = self.path / "cgroup.procs"

    @classmethod
    def at(cls, path: Path) -> Self:
        """The handle of a cgroup that exists."""
        return cls(path=path, new=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def child(self, name: str) -> "Cgroup":
        """A new cgroup below this one (removed with it)."""
        return Cgroup(path=self.path / name)

    @property
    def id(self) -> int:
        """The kernel's number of this cgroup."""
        return self.path.stat().st_ino

    def command(self, command: Sequence[str], netns: NetNs | None = None) -> list[str]:
        """`command` as run in this cgroup (and in a namespace)."""
        inner = list(command) if netns is None else netns.command(command)
        return ["sh", "-c", _ENTER, str(self.procs), *inner]

    def run(
        self,
        command: Sequence[str],
        *,
        netns: NetNs | None = None,
        input: str | None = None,
        timeout_s: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this cgroup to its end; its exit code is the caller's to judge."""
        return subprocess.run(
            self.command(command, netns),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def spawn(
        self, command: Sequence[str], *, netns: NetNs | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a command in this cgroup; `options` are Popen's."""
        return subprocess.Popen(self.command(command, netns), text=True, **options)

    def call(self, function: Callable[[], R], *, netns: NetNs | None = None, **options: Any) -> R:
        """Call a function in a forked child in this cgroup (see `process.forked`)."""
        return forked(
            function, procs=self.procs, netns=netns.path if netns is not None else None, **options
        )

    def close(self) -> None:
        """Kill whatever runs here or below, and remove everything (deepest first)."""
        if not self.path.exists():
            return
        (self.path / "cgroup.kill").write_text("1")
        wait_until(self._empty, f"processes of {self.path} end")
        for folder in sorted(self._below(), key=lambda path: -len(path.parts)):
            wait_until(lambda folder=folder: _removed(folder), f"{folder} is removed")  # type: ignore[misc]

    def _empty(self) -> bool:
        return "populated 0" in (self.path / "cgroup.events").read_text()

    def _below(self) -> list[Path]:
        return [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]


def _removed(folder: Path) -> bool:
    """Remove a cgroup; false while the kernel still holds a dying process in it."""
    with suppress(FileNotFoundError):
        try:
            folder.rmdir()
        except OSError:
            return False
    return True
