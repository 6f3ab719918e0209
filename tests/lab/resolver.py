"""As much of a name server as `dig` needs to be satisfied (RFC 1035, 4.1)."""

import struct
from typing import Final

_A: Final = 1
_AAAA: Final = 28
_RESPONSE_RA: Final = 0x8180
_COMPRESSED_NAME: Final = 0xC00C
_RECORDS: Final = {
    _A: bytes([203, 0, 113, 1]),
    _AAAA: bytes.fromhex("20010db8000c00000000000000000001"),
}


def answer_to(query: bytes) -> bytes:
    """The answer to any one question: every name has the correspondent's A and AAAA records."""
    end = query.index(0, 12) + 5
    question = query[12:end]
    (kind,) = struct.unpack_from("!H", question, len(question) - 4)
    data = _RECORDS.get(kind)
    header = query[:2] + struct.pack("!HHHHH", _RESPONSE_RA, 1, int(data is not None), 0, 0)
    if data is None:
        return header + question
    return (
        header + question + struct.pack("!HHHIH", _COMPRESSED_NAME, kind, 1, 60, len(data)) + data
    )
