"""The blocks of addresses in which nothing is typed: what bpf/odm_block.h reads."""

from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Network, ip_network
from typing import Any, Final, Protocol

from odm_agent.core import tables
from odm_agent.core.model import IPAddress, IPNetwork
from odm_agent.core.projection import SourceRow, SpanRow
from odm_agent.core.tables import Table
from odm_agent.datapath import abi

#: The tables whose rows say what is typed.
OF_TYPINGS: Final = (tables.SPANS, tables.SOURCES)
#: A network of so many blocks counts as in all of them.
_ALL: Final = 1 << abi.BLOCK_BITS
_FULL_WORD: Final = (1 << 64) - 1


class Words(Protocol):
    """The map odm_untyped_blocks: 64 blocks a word."""

    def get(self, key: int) -> int | None:
        """One word."""

    def put(self, key: int, value: int) -> None:
        """Write a word."""


def blocks_of(network: IPNetwork) -> Collection[int]:
    """The numbers of the blocks in which a network lies: 16 IPv4 addresses are one, an IPv6 /64."""
    within = abi.BLOCK_SHIFT4 if isinstance(network, IPv4Network) else 64
    first = int(network.network_address) >> within
    count = max(1, network.num_addresses >> within)
    if count >= _ALL:
        return range(_ALL)
    return frozenset(map(_number, range(first, first + count)))


def _number(block: int) -> int:
    folded = (block >> 32) ^ (block & 0xFFFFFFFF)
    return (folded * abi.BLOCK_FACTOR & 0xFFFFFFFF) >> (32 - abi.BLOCK_BITS)


class Blocks:
    """Keeps the map true, around each change of a row that types an address or a network.

    A block is taken out of the map `before` anything in it is typed, and put back `after` nothing
    is. So whatever fails or ends between, no block counts as untyped that is not.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._written = [words.get(at) or 0 for at in range(abi.BLOCK_WORDS)]
        self._goal = [_FULL_WORD] * abi.BLOCK_WORDS
        #: The words that may not be written as they should be.
        self._noted = set(range(abi.BLOCK_WORDS))
        self._typed: dict[tuple[str, Any], Collection[int]] = {}
        self._counts: Counter[int] = Counter()

    def note(
        self,
        table: Table[Any, Any],
        key: IPAddress | IPNetwork,
        row: SourceRow | SpanRow | None,
    ) -> None:
        """A row that is there, or (None) is not; `write` makes the map say so."""
        known = self._typed.get((table.name, key))
        if _is_typed(row) and known is None:
            self._typed[table.name, key] = found = blocks_of(ip_network(key))
            self._count(found, 1)
        elif not _is_typed(row) and known is not None:
            del self._typed[table.name, key]
            self._count(known, -1)

    def before(
        self, table: Table[Any, Any], key: IPAddress | IPNetwork, row: SourceRow | SpanRow
    ) -> None:
        """A row that will be written."""
        if _is_typed(row):
            self.note(table, key, row)
            for at in sorted(self._noted):
                self._put(at, self._written[at] & self._goal[at])

    def after(
        self,
        table: Table[Any, Any],
        key: IPAddress | IPNetwork,
        row: SourceRow | SpanRow | None,
    ) -> None:
        """A row that was written, or (None) removed."""
        self.note(table, key, row)
        self.write()

    def write(self) -> None:
        """Make the map what was noted."""
        for at in sorted(self._noted):
            self._put(at, self._goal[at])
        self._noted.clear()

    def _put(self, at: int, word: int) -> None:
        if self._written[at] != word:
            self._words.put(at, word)
            self._written[at] = word

    def _count(self, found: Collection[int], change: int) -> None:
        for number in found:
            self._counts[number] += change
            word, bit = divmod(number, 64)
            self._noted.add(word)
            if self._counts[number]:
                self._goal[word] &= ~(1 << bit)
            else:
                self._goal[word] |= 1 << bit


def _is_typed(row: SourceRow | SpanRow | None) -> bool:
    """A shared address is untyped to everybody whose packets have no mark of ours."""
    if row is None or not row.type:
        return False
    return not (isinstance(row, SourceRow) and row.shared)
