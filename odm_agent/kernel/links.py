"""Interfaces, as the kernel lists them (RTM_GETLINK)."""

import struct
from typing import Final

from odm_agent.kernel.wire import Message, Wire, attribute, attributes
from odm_agent.model import Link

_RTM_GETLINK: Final = 18
_RTM_NEWLINK: Final = 16
_HEADER: Final = struct.Struct("=BxHiII")
_IFLA_IFNAME: Final = 3
_IFF_UP: Final = 0x1
_IFF_LOWER_UP: Final = 0x10000


def read(wire: Wire) -> list[Link]:
    """All interfaces of the namespace."""
    answer = wire.dump(Message(_RTM_GETLINK, _HEADER.pack(0, 0, 0, 0, 0)))
    return [_parse(part.body) for part in answer if part.kind == _RTM_NEWLINK]


def index_of(wire: Wire, name: str) -> int:
    """The number of an interface; raises RefusedError (ENODEV).

    Asked of the wire's namespace: if_nametoindex(3) would ask that of the calling thread.
    """
    body = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return _parse(wire.get(Message(_RTM_GETLINK, body)).body).index


def _parse(body: bytes) -> Link:
    _, _, index, flags, _ = _HEADER.unpack_from(body)
    name = attributes(body, _HEADER.size)[_IFLA_IFNAME].rstrip(b"\0").decode()
    both = _IFF_UP | _IFF_LOWER_UP
    return Link(name=name, index=index, up=flags & both == both)
