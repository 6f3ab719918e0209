"""Messages that are packed here, by pyroute2's description of their fixed part.

For each field and attribute it makes objects, of which those of a route, say, take several times
as long as the kernel takes for the route. What is added while an application waits, or by the
thousand, is packed at once.
"""

import struct
from typing import Any, ClassVar

from odm_agent.kernel.wire import HEADER, attribute


class PackedMessage(dict[str, Any]):
    """To be sent only. `fields` of a subclass are those of pyroute2's message, names and formats;
    what is not set is 0. "attrs" are numbers and bytes.
    """

    fields: ClassVar[tuple[tuple[str, str], ...]] = ()
    _fixed: ClassVar[struct.Struct]
    _names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        cls._fixed = struct.Struct("=" + "".join(code for _, code in cls.fields))
        cls._names = tuple(name for name, code in cls.fields if not code.endswith("x"))

    def __init__(self) -> None:
        super().__init__(attrs=[])
        self.data = bytearray()

    def encode(self) -> None:
        """Pack it into `data`; as pyroute2's messages are."""
        header, of_fields = self["header"], [self.get(name, 0) for name in self._names]
        parts = [attribute(kind, value) for kind, value in self["attrs"]]
        body = self._fixed.pack(*of_fields) + b"".join(parts)
        size = HEADER.size + len(body)
        self.data = bytearray(HEADER.pack(size, header["type"], header["flags"], 0, 0) + body)
