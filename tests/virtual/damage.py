"""Packets that were damaged on their way, drawn by hypothesis."""

from collections.abc import Iterable
from enum import Enum, auto

from hypothesis import strategies as st


class Edit(Enum):
    """What happens to a packet at one place."""

    FLIP = auto()
    REPLACE = auto()
    CUT = auto()
    INSERT = auto()
    DROP = auto()
    DOUBLE = auto()


#: What, where (modulo the packet's length), and the octets that it takes.
Damage = tuple[Edit, int, bytes]

_DAMAGES = st.lists(
    st.tuples(st.sampled_from(Edit), st.integers(0, 400), st.binary(min_size=1, max_size=8)),
    max_size=4,
)


def damaged(data: bytes, damages: Iterable[Damage]) -> bytes:
    """With some of its octets changed, cut, doubled or moved."""
    octets = bytearray(data)
    for edit, where, new in damages:
        at = where % (len(octets) + 1)
        match edit:
            case Edit.FLIP if at < len(octets):
                octets[at] ^= 1 << new[0] % 8
            case Edit.REPLACE:
                octets[at : at + len(new)] = new
            case Edit.CUT:
                del octets[at:]
            case Edit.INSERT:
                octets[at:at] = new
            case Edit.DROP:
                del octets[at : at + len(new)]
            case Edit.DOUBLE:
                octets[at:at] = octets[: new[0] % (len(octets) + 1)]
    return bytes(octets)


def edited(packets: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """These packets, most of them with some damage."""
    return st.builds(damaged, packets, _DAMAGES)
