"""Messages of pyroute2 whose attributes are bytes already.

To make an attribute it makes an object, of which each of a route, say, takes as long as the kernel
takes for the whole route. What is added while an application waits, or by the thousand, is so made
five times as fast; header and fixed part are packed by pyroute2.
"""

from typing import Any

from pyroute2.netlink import nlmsg

from odm_agent.kernel.wire import attribute


class PackedMessage(nlmsg):  # type: ignore[misc]  # pyroute2 is untyped
    """Of a subclass, `fields` are those of pyroute2's message; "attrs" are numbers and bytes.

    To be sent only: nothing is unpacked of its attributes.
    """

    #: There are attributes; what they are called is not asked for.
    nla_map = ((0, "UNSPEC", "none"),)
    # What it is asked for is what was set, so no name of an attribute has to be thought of.
    get = dict[str, Any].get
    __getitem__ = dict[str, Any].__getitem__

    def encode_nlas(self, offset: int) -> int:
        """Pack the attributes; where they end. Called by pyroute2."""
        packed = b"".join(attribute(kind, value) for kind, value in self["attrs"])
        self.data.extend(packed)
        return offset + len(packed)
