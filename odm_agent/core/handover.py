"""What becomes of an old prefix by a handover, for each address type: a literal table.

A handover: the network that the host is attached to now does not serve the prefix any more, since
the host has moved, or since that network has forgotten it. Both IP versions are treated alike.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from odm_agent.core.model import AddressType


class Old(Enum):
    """What becomes of an old prefix. Nothing leaves from it by a network that does not serve it."""

    #: It is over at once, and given to nobody any more.
    OVER = "over"
    #: It is given to nobody any more, and goes on for as long as the network says that it stays
    #: valid; a new one is asked for at once where sockets used it.
    GRACE = "grace"
    #: It waits for a network that serves it while a socket has it, then goes back.
    IN_USE = "in-use"
    #: It waits for a network that serves it, whether a socket has it or not.
    STAYS = "stays"


#: RFC 8653, section 3.2: what each type promises.
HANDOVER: Final[Mapping[AddressType, Old]] = {
    AddressType.FIXED: Old.STAYS,
    AddressType.SESSION_LASTING: Old.IN_USE,
    AddressType.NONPERSISTENT: Old.OVER,
    AddressType.GRACEFUL_REPLACEMENT: Old.GRACE,
}


def waits(type_: AddressType) -> bool:
    """Whether an old prefix of the type waits for a network that serves it."""
    return HANDOVER[type_] in (Old.IN_USE, Old.STAYS)
