"""What a test run may leave behind in the kernel: nothing.

A snapshot before and one after; `left_behind` tells the difference. Objects whose name carries the
process id of another living process belong to another run beside this one and are left out.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.lab.cgroup import v2_root

#: In the environment of all that a run starts: finds processes that outlived it.
MARK: Final = "ODM_TEST_RUN"
_PATIENCE_S: Final = 2.0
_VOLATILE: Final = re.compile(r" (valid_lft|preferred_lft|expires|age) \S+|\\ +")
Snapshot = dict[str, frozenset[str]]


def snapshot() -> Snapshot:
    """Everything that we look at, by kind, as sets of printable names."""
    return {kind: frozenset(read()) for kind, read in _KINDS.items()}


def left_behind(before: Snapshot, patience_s: float = _PATIENCE_S) -> list[str]:
    """Lines that say what came, went or changed since `before`.

    Waits up to `patience_s` for what is still going away (dying cgroups, closing namespaces).
    """
    deadline = time.monotonic() + patience_s
    while True:
        lines = _difference(before, snapshot())
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def _difference(before: Snapshot, after: Snapshot) -> list[str]:
    lines = []
    for kind in _KINDS:
        old, new = before[kind], after[kind]
        if kind == "sysctl":  # only what exists before and after can have been changed
            names = {_name(each) for each in old} & {_name(each) for each in new}
            old, new = (frozenset(s for s in side if _name(s) in names) for side in (old, new))
        lines += [f"{kind} left behind: {each}" for each in sorted(new - old) if not _foreign(each)]
        lines += [f"{kind} taken away: {each}" for each in sorted(old - new) if not _pids(each)]
    return lines


def _name(sysctl: str) -> str:
    return sysctl.partition(" = ")[0]


def _foreign(text: str) -> bool:
    """Whether a name carries the process id of somebody else who is alive."""
    return any(Path(f"/proc/{pid}").exists() for pid in _pids(text))


def _pids(text: str) -> set[int]:
    """What may be process ids of other runs in the name of a namespace, cgroup or pin."""
    found = re.findall(r"odm[a-z]*-(?:[a-z]+-)*(\d+)(?=[-/ ]|$)", text)
    return {int(each) for each in found} - {os.getpid()}


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def _namespaces() -> Iterator[str]:
    folder = Path("/run/netns")
    yield from (path.name for path in folder.iterdir()) if folder.exists() else ()


def _cgroups() -> Iterator[str]:
    for folder, _, _ in os.walk(v2_root()):
        yield folder


def _pins() -> Iterator[str]:
    for folder, folders, files in os.walk("/sys/fs/bpf"):
        yield from (f"{folder}/{each}" for each in [*folders, *files])


def _programs() -> Iterator[str]:
    done = subprocess.run(
        ["bpftool", "-j", "cgroup", "tree", str(v2_root())],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    # An empty tree is answered with nothing at all; a cgroup may vanish during the walk.
    for cgroup in json.loads(done.stdout) if done.stdout.strip().startswith("[") else []:
        for program in cgroup.get("programs", []):
            yield f"{cgroup['cgroup']} {program.get('attach_type')} {program.get('name')}"


def _lines(*command: str) -> Callable[[], Iterator[str]]:
    def read() -> Iterator[str]:
        for line in _run(*command).splitlines():
            yield _VOLATILE.sub("", line).strip()

    return read


def _links() -> Iterator[str]:
    for link in json.loads(_run("ip", "-j", "link")):
        yield f"{link['ifname']} {'UP' in link['flags']}"


def _sysctls() -> Iterator[str]:
    for family in ("core", "ipv4", "ipv6"):
        for path in sorted((Path("/proc/sys/net") / family).rglob("*")):
            if path.is_file() and path.stat().st_mode & 0o200:
                try:
                    yield f"{path} = {path.read_text().strip()}"
                except OSError:
                    continue  # some exist to be written only, some vanish with their interface


def _processes() -> Iterator[str]:
    mark = f"{MARK}={os.getpid()}".encode()
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
    "cgroup program": _programs,
    "link": _links,
    "address": _lines("ip", "-o", "address"),
    "route": _lines("ip", "-4", "route", "show", "table", "all"),
    "IPv6 route": _lines("ip", "-6", "route", "show", "table", "all"),
    "rule": _lines("ip", "-4", "rule"),
    "IPv6 rule": _lines("ip", "-6", "rule"),
    "sysctl": _sysctls,
    "process": _processes,
}
