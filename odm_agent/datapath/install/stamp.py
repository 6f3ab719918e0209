"""Whose pins these are: the row of odm_identities, which is written when all else is in place."""

import ctypes as ct
from dataclasses import dataclass
from pathlib import Path

from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.catalogue import IDENTITY
from odm_agent.datapath.install import c_text


@dataclass(frozen=True, slots=True)
class Identity:
    """What odm_identities says of the pins."""

    abi_tag: int
    storage_tag: int
    source_hash: bytes


def read(pin_dir: Path) -> Identity | None:
    """Whose pins these are; None where there are none, or none that were ever whole."""
    if not (pin_dir / IDENTITY).exists():
        return None
    identities = _open(pin_dir)
    try:
        row = identities.get(0)
    finally:
        identities.close()
    assert row is not None  # an array has all its rows
    if not row.abi_tag:
        return None
    return Identity(row.abi_tag, row.storage_tag or 1, bytes(row.source_hash))


def note_change(pin_dir: Path) -> None:
    """From now on the pins are no version's, until they are wholly this one's."""
    identities = _open(pin_dir)
    try:
        row = identities.get(0)
        assert row is not None  # an array has all its rows
        identities.put(0, abi.Identity(abi_tag=row.abi_tag, storage_tag=row.storage_tag))
    finally:
        identities.close()


def write(pin_dir: Path) -> None:
    """Last: pins that say whose they are, are whole."""
    identities = _open(pin_dir)
    try:
        row = abi.Identity(abi_tag=abi.ABI_TAG, storage_tag=abi.STORAGE_TAG)
        row.source_hash[:] = c_text.source_hash()
        identities.put(0, row)
    finally:
        identities.close()


def _open(pin_dir: Path) -> libbpf.Map:
    """The map that says what is pinned there; the caller closes it."""
    fd = libbpf.get_pinned(pin_dir / IDENTITY)
    return libbpf.Map(fd, ct.c_uint32, abi.Identity, IDENTITY)
