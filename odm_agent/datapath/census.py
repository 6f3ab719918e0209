"""Every socket that has storage, as the kernel iterates over them: UDP and bound-only ones too."""

import ctypes as ct
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.core.model import AddressType, Family, IPAddress
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.base import LiveKey, unconfigured

log = logging.getLogger(__name__)

#: The kernel knows what to iterate over by the program's name.
PROGRAM: Final = "bpf_iter__bpf_sk_storage_map"
#: The link's pin; it begins with odm_ as all of ours.
PIN: Final = "odm_census"


@dataclass(frozen=True, slots=True)
class CensusRow:
    """A socket with storage: the type it asked for, and what it holds (None: nothing counted)."""

    cookie: int
    asked: AddressType
    tracked: bool
    held: IPAddress | None = None
    held_class: int = 0
    held_type: AddressType = AddressType.UNSPECIFIED
    #: The row of odm_live in which it is counted; None: the map was full when it was counted.
    row: LiveKey | None = None
    #: That of who asked for the type, or of who made the socket, at that time.
    class_id: int = 0


def install(pin_dir: Path, prog_fd: int) -> None:
    """Pin a link of the iterator, in the place of an older one."""
    map_fd = libbpf.get_pinned(pin_dir / "odm_sockets")
    try:
        link_fd = libbpf.iterator_create(prog_fd, map_fd)
    finally:
        os.close(map_fd)
    try:
        (pin_dir / PIN).unlink(missing_ok=True)
        libbpf.pin(link_fd, pin_dir / PIN)
    finally:
        os.close(link_fd)


def take(link_fd: int) -> list[CensusRow]:
    """All sockets with storage, of every namespace, now; by the link. Raises DatapathError."""
    data = libbpf.iterator_read(link_fd)
    size = ct.sizeof(abi.Census)
    if len(data) % size:
        raise DatapathError(f"the census is not made of rows of {size} bytes")
    rows = (abi.Census * (len(data) // size)).from_buffer_copy(data)
    return [_row(row) for row in rows]


def _row(row: abi.Census) -> CensusRow:
    socket = CensusRow(
        cookie=row.cookie,
        asked=AddressType(row.type),
        tracked=bool(row.flags & abi.SOCKET_TRACKED),
        class_id=row.class_id,
    )
    if not row.holds & (abi.HELD_BY_USER | abi.HELD_BY_KERNEL):
        return socket
    held, type_ = abi.unpack_addr(row.held), AddressType(row.held_type)
    address = unconfigured(Family.of(held)) if row.holds & abi.HELD_UNCONFIGURED else held
    key = None if row.holds & abi.HELD_ROWLESS else LiveKey(address, row.held_class, type_)
    return replace(socket, held=held, held_class=row.held_class, held_type=type_, row=key)
