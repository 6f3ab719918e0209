"""What programs are for, and the row of odm_settings that tells them."""

import ctypes as ct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odm_agent.datapath import abi, libbpf


@dataclass(frozen=True, slots=True)
class Deployment:
    """What programs are for. `netns_cookie` is the agent's own network namespace."""

    pin_dir: Path
    cgroup: Path
    netns_cookie: int
    mark_mask: int
    protocol: int


def fit(wanted: Deployment) -> bool:
    """Whether the programs in force are told what is wanted."""
    row = read(wanted.pin_dir)
    return (row.home_netns, row.mark_mask, row.protocol) == (
        wanted.netns_cookie,
        wanted.mark_mask,
        wanted.protocol,
    )


def read(pin_dir: Path) -> Any:
    """The row that is there now."""
    settings = _open(pin_dir)
    try:
        return settings.get(0)
    finally:
        settings.close()


def write(folder: Path, wanted: Deployment) -> None:
    """A hook that doesn't know home takes every socket for foreign."""
    settings = _open(folder)
    try:
        row = settings.get(0)
        assert row is not None  # an array has all its rows
        before = bytes(row)
        row.home_netns = wanted.netns_cookie
        row.mark_mask = wanted.mark_mask
        row.protocol = wanted.protocol
        row.epoch = row.epoch or 1
        if bytes(row) != before:  # a running agent writes this row, too
            settings.put(0, row)
    finally:
        settings.close()


def disown(pin_dir: Path) -> None:
    """Let no namespace be the programs' home: those that only look at its sockets let all pass."""
    if (pin_dir / "odm_settings").exists():
        disown_map(libbpf.get_pinned(pin_dir / "odm_settings"))


def disown_map(fd: int) -> None:
    """The same, of a map that is given; closes the descriptor."""
    settings = libbpf.Map(fd, ct.c_uint32, abi.Settings, "odm_settings")
    try:
        row = settings.get(0)
        assert row is not None  # an array has all its rows
        row.home_netns = 0
        settings.put(0, row)
    finally:
        settings.close()


def _open(pin_dir: Path) -> libbpf.Map:
    fd = libbpf.get_pinned(pin_dir / "odm_settings")
    return libbpf.Map(fd, ct.c_uint32, abi.Settings, "odm_settings")
