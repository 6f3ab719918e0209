"""Blocks in which nothing is typed, as the agent writes them and the programs read them."""

import ctypes as ct
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core import tables
from odm_agent.core.model import AddressType, IPAddress, IPNetwork
from odm_agent.core.projection import SourceRow, SpanRow
from odm_agent.datapath import abi
from odm_agent.datapath.maps.blocks import Blocks
from tests.lab.compiled import library

_TYPED: Final = SourceRow(1, AddressType.FIXED)
_NETWORKS: Final = st.sampled_from(
    [
        *("2001:db8:1::/64", "2001:db8:1::/48", "2001:db8:2::/60", "2001:db8:3:4::5/128"),
        *("2001:db8:5::/56", "192.0.2.64/29", "192.0.2.0/24", "198.51.0.0/16", "10.0.0.1/32"),
    ]
)
_SOURCES: Final = st.sampled_from(
    [_TYPED, SourceRow(), SourceRow(1, AddressType.FIXED, shared=True)]
)


class Map:
    """The map, whose words are the programs', too."""

    def __init__(self) -> None:
        self._programs = ct.CDLL(str(library(Path(__file__).parents[1] / "block.c")))
        self._programs.set_word.argtypes = [ct.c_uint32, ct.c_uint64]
        self._programs.is_in_untyped_block.restype = ct.c_bool
        self.words = [0] * abi.BLOCK_WORDS
        for at in range(abi.BLOCK_WORDS):
            self.put(at, 0)

    def get(self, key: int) -> int | None:
        """One word."""
        return self.words[key]

    def put(self, key: int, value: int) -> None:
        """Write a word."""
        self.words[key] = value
        self._programs.set_word(key, value)

    def is_untyped(self, address: IPAddress) -> bool:
        """What the programs make of an address."""
        packed = abi.pack_addr(address)
        return bool(self._programs.is_in_untyped_block(ct.byref(packed)))


def test_what_is_all_zero_says_nothing() -> None:
    made = Map()
    Blocks(made)
    assert not made.is_untyped(ip_address("2001:db8::1"))
    assert not made.is_untyped(ip_address("192.0.2.1"))


@given(st.data())
def test_programs_take_no_typed_address_for_an_untyped_one(data: st.DataObject) -> None:
    """After each row that is written or removed, and while it is."""
    made = Map()
    blocks = Blocks(made)
    typed: dict[tuple[str, Any], IPNetwork] = {}

    def check() -> None:
        for network in typed.values():
            inside = data.draw(st.integers(0, network.num_addresses - 1))
            assert not made.is_untyped(network[inside])

    for text in data.draw(st.lists(_NETWORKS, max_size=12)):
        network = ip_network(text)
        table, key, row = tables.SPANS, network, SpanRow(1, AddressType.FIXED)
        if data.draw(st.booleans()):
            table, key, row = tables.SOURCES, network[0], data.draw(_SOURCES)  # type: ignore
        name = (table.name, key)
        if data.draw(st.booleans()):
            blocks.before(table, key, row)
            if row in (_TYPED, SpanRow(1, AddressType.FIXED)):
                typed[name] = ip_network(key)
            check()  # it is not written yet, or its end is not told yet
            if data.draw(st.booleans()):
                continue  # nor will it be: the map is full
            blocks.after(table, key, row)
            if not row.type or (isinstance(row, SourceRow) and row.shared):
                typed.pop(name, None)
        else:
            typed.pop(name, None)
            blocks.after(table, key, None)
        check()
    blocks.write()
    assert made.words == blocks._goal, "no word was forgotten"


@pytest.mark.parametrize("table", [tables.SPANS, tables.SOURCES], ids=repr)
@pytest.mark.parametrize("text", ["2001:db8:1::/64", "192.0.2.64/28", "2001:db8:4::/48"])
def test_a_block_counts_as_untyped_again_when_nothing_in_it_is_typed(
    table: tables.Table[Any, Any], text: str
) -> None:
    made, network = Map(), ip_network(text)
    blocks = Blocks(made)
    blocks.write()
    elsewhere = ip_address("2001:db8:ffff::1")
    key = network if table is tables.SPANS else network[1]
    row = SpanRow(1, AddressType.FIXED) if table is tables.SPANS else _TYPED
    blocks.before(table, key, row)
    blocks.after(table, key, row)
    assert not made.is_untyped(network[0])
    assert made.is_untyped(elsewhere) or network.num_addresses > 1 << 64
    other = network[3]
    blocks.after(tables.SOURCES, other, _TYPED)
    blocks.after(table, key, None)
    assert not made.is_untyped(network[0]), "another address in it is typed"
    blocks.after(tables.SOURCES, other, SourceRow())
    assert made.is_untyped(network[0]) and made.is_untyped(elsewhere)


def test_what_an_agent_before_has_left_is_gone_on_with() -> None:
    made = Map()
    Blocks(made).write()
    again = Blocks(made)
    again.note(tables.SOURCES, ip_address("192.0.2.1"), _TYPED)
    again.before(tables.SOURCES, ip_address("2001:db8::1"), _TYPED)
    assert not made.is_untyped(ip_address("192.0.2.1"))
    assert not made.is_untyped(ip_address("2001:db8::1"))
