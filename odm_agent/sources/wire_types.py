"""Address types as DHCPv6 and router advertisements number them, which sockets do otherwise.

draft-moses-dmm-dhcp-ondemand-mobility-11 and draft-feng-dmm-ra-prefixtype-03: 1 is nonpersistent
and 3 is fixed; in the socket option's field (`AddressType`) it is the other way round.
"""

from collections.abc import Mapping
from typing import Final

from odm_agent.core.model import AddressType

_ON_WIRE: Final[Mapping[AddressType, int]] = {
    AddressType.NONPERSISTENT: 1,
    AddressType.SESSION_LASTING: 2,
    AddressType.FIXED: 3,
    AddressType.GRACEFUL_REPLACEMENT: 4,
}
_OF_WIRE: Final = {number: type_ for type_, number in _ON_WIRE.items()}


def to_wire(type_: AddressType) -> int:
    """The number of a type on the wire."""
    return _ON_WIRE[type_]


def from_wire(number: int) -> AddressType | None:
    """The type of a number; None: it is reserved, or 0, which names no type."""
    return _OF_WIRE.get(number)
