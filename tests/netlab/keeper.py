"""A laboratory that goes on when the command that made it is over: its keeper, and its end.

The keeper is a process that holds the laboratory. All that it makes carries its number, so that
even when it is killed all can be found and removed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.lab import run
from tests.lab.process import wait_until
from tests.netlab.folder import PLACE

#: What there is of the one laboratory: number of its keeper, what it says, links to namespaces.
STATE: Final = Path(os.environ.get("ODM_NETLAB") or "/run/odm-netlab")
_START_S: Final = 90.0
_STOP_S: Final = 30.0
#: The shell's process becomes the keeper, so that the number is known in its first environment.
_KEEPER: Final = f'{run.MARK}=$$ exec "$0" -m tests.netlab keep'


class LabError(Exception):
    """What can't be done with the laboratory, and what to do instead."""


def number() -> int | None:
    """The number of the laboratory that there is, whole or in part; None: there is none."""
    try:
        return int((STATE / "number").read_text())
    except (FileNotFoundError, ValueError):
        return None


def described() -> dict[str, Any]:
    """What the keeper says of the laboratory that is up; empty: there is none, or not whole."""
    try:
        said: dict[str, Any] = json.loads((STATE / "described").read_text())
    except FileNotFoundError:
        return {}
    return said if _keeps(said["number"]) else {}


def start() -> None:
    """Start a keeper and return when the laboratory is up; one that fails leaves nothing."""
    try:
        STATE.mkdir()
    except FileExistsError:
        raise LabError(
            f"there is a laboratory already, or what is left of one ({STATE}):"
            " see `make netlab-status`, remove it by `make netlab-down`"
        ) from None
    with (STATE / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", _KEEPER, sys.executable],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        (STATE / "number").write_text(str(process.pid))
        wait_until(lambda: bool(described()) or process.poll() is not None, "it is up", _START_S)
        if process.poll() is not None:
            said = (STATE / "log").read_text(errors="replace")
            raise LabError(f"the laboratory did not come up:\n{said}")
    except BaseException:
        stop()
        raise


def stop() -> list[str]:
    """Remove the laboratory; what its keeper could not remove itself is returned, by name."""
    number_ = number()
    if number_ is not None and _keeps(number_):
        os.kill(number_, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _keeps(number_) and time.monotonic() < deadline:
            time.sleep(0.05)
    swept = list(sweep(number_)) if number_ is not None else []
    shutil.rmtree(STATE, ignore_errors=True)
    return swept


def sweep_after(number_: int) -> list[str]:
    """Remove, and name, what a killed run of tests has left; its number is that in all names."""
    if Path(f"/proc/{number_}").exists():
        raise LabError(f"process {number_} is still there: end that run first")
    return list(sweep(number_))


def sweep(number_: int) -> Iterator[str]:
    """Remove whatever carries a laboratory's number, and name it."""
    processes = list(_processes(number_))
    for pid, command in processes:
        yield f"process {pid}: {command}"
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not list(_processes(number_)), "its processes end", _STOP_S)
    prefix = f"{run.LAB}-{number_}-"
    for namespace in sorted(Path("/run/netns").glob(f"{prefix}*")):
        yield f"network namespace {namespace.name}"
        subprocess.run(["ip", "netns", "delete", namespace.name], check=True)
    for folder in sorted(PLACE.glob(f"{prefix}*")):
        yield f"folder {folder}"
        shutil.rmtree(folder)


def _keeps(pid: int) -> bool:
    """Whether a process is the keeper of the laboratory with its number."""
    return any(each == pid for each, command in _processes(pid) if "tests.netlab keep" in command)


def _processes(number_: int) -> Iterator[tuple[int, str]]:
    """Processes that were started with the number in their environment, and their commands."""
    mark = f"{run.MARK}={number_}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark in environment and state != "Z":
            yield int(folder.name), command
