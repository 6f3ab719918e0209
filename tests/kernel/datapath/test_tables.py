"""Every table in its maps as the kernel has them, and a map walked over while rows come and go."""

import ctypes as ct
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, Final

import pytest

from odm_agent.core import tables
from odm_agent.core.model import AddressType, Cap, ClassPolicy, Family, Limit, SocketKind
from odm_agent.core.projection import CgroupRow, LeaseRow, PrefixRow, Projection, SourceRow, SpanRow
from odm_agent.core.tables import Table
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.catalogue import MAPS, Shape
from odm_agent.datapath.libbpf.library import check, library
from odm_agent.datapath.maps import reader
from odm_agent.datapath.maps import tables as in_maps
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.world import World

_FIXED: Final = AddressType.FIXED
_POOL: Final = tuple(IPv6Address("2001:db8:77::") + number for number in range(3))
#: A row of each table that no configuration of the standard world has, and another one for its key.
_ROWS: Final[dict[Table[Any, Any], tuple[Any, Any, Any]]] = {
    tables.LEASES: (9, LeaseRow(1, 2, 3, 4), LeaseRow(budget=5, hard=True)),
    tables.SPANS: (
        IPv6Network("2001:db8:77::/48"),
        SpanRow(9, _FIXED),
        SpanRow(9, _FIXED, True, 5),
    ),
    tables.SOURCES: (
        IPv4Address("192.0.2.77"),
        SourceRow(9, _FIXED),
        SourceRow(9, _FIXED, lease=3),
    ),
    tables.PREFIXES: (
        900,
        PrefixRow(_FIXED, Family.IPV6, 7, 0x9000000, _POOL, 2),
        PrefixRow(_FIXED, Family.IPV6, 7, 0x9000000, _POOL[1:], 1, 1, 1, (8, 9), b"k" * 16),
    ),
    tables.SEATS: ((900, 200), 901, 902),
    tables.CHOICES: ((AddressType.UNSPECIFIED, Family.IPV4), (900, 3), (900,)),
    tables.CLASSES: (
        200,
        ClassPolicy(
            *(200, "", frozenset({_FIXED})),
            refuse=frozenset({SocketKind.RAW}),
            limits=frozenset({Limit(_FIXED, 3600, 10**9)}),
        ),
        ClassPolicy(200, "", frozenset({_FIXED}), caps=frozenset({Cap(_FIXED, 3, 60)})),
    ),
    tables.CGROUPS: (1 << 60, CgroupRow(1), CgroupRow(2, _FIXED)),
    tables.UPLINKS: (1 << 30, None, None),
}


@contextmanager
def _made(name: str, shape: Shape) -> Iterator[int]:
    """A new map of a shape; its descriptor."""
    sizes = (ct.sizeof(shape.key), ct.sizeof(shape.value), shape.max_entries)
    fd = library().bpf_map_create(shape.type, name.encode(), *sizes, None)
    with libbpf.opened(check(fd, f"making {name}")):
        yield fd


@pytest.fixture
def agentless(world: World) -> Iterator[World]:
    """The maps of the world while no agent writes them."""
    world.agent.stop()
    yield world
    world.agent.start()


def _seen(world: World, table: Table[Any, Any], key: Any) -> tuple[bool, Any]:
    """Whether another process that opens the maps finds a row, and which."""
    with MapWriter(world.agent.pins) as other:
        found = table.of(other.read())
    return key in found, found.get(key)


@pytest.mark.parametrize("table", tables.ALL, ids=repr)
def test_a_row_is_found_by_others_as_it_was_put_and_no_more_when_it_was_dropped(
    agentless: World, table: Table[Any, Any]
) -> None:
    key, first, second = _ROWS[table]
    with MapWriter(agentless.agent.pins) as maps:
        before = maps.read()
        for row in (first, second):
            maps.apply(table.put(key, row))
            assert _seen(agentless, table, key) == (True, row)
            assert table.of(maps.read())[key] == row
        for _ in range(2):  # what is not there counts as dropped
            maps.apply(table.drop(key))
            assert _seen(agentless, table, key) == (False, None)
        assert maps.read() == before


# --- what the next map takes: its shape, its table, its packing ---------------------------------


@dataclass(frozen=True, slots=True)
class _Larger(Projection):
    tallies: dict[int, int] = field(default_factory=dict)


def test_another_map_is_written_and_read_for_a_shape_a_table_and_a_packing(
    agentless: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallies: Table[int, int] = Table("tallies")
    name = "odm_tallies"
    shape = Shape(1, ct.c_uint32, ct.c_uint64, 16, 0, "agent")
    pin = agentless.agent.pins / name
    monkeypatch.setitem(MAPS, name, shape)
    monkeypatch.setattr(reader, "_OPENED", (*reader._OPENED, name))
    packing = in_maps.Packing(tallies, name, int, int, int, int)
    monkeypatch.setattr(in_maps, "PACKINGS", [*in_maps.PACKINGS, packing])
    monkeypatch.setattr("odm_agent.datapath.maps.writer.Projection", _Larger)
    with _made(name, shape) as fd:
        libbpf.pin(fd, pin)
        try:
            with MapWriter(agentless.agent.pins) as maps:
                maps.apply(tallies.put(3, 1 << 40))
                maps.apply(tallies.put(4, 0))
                maps.apply(tallies.drop(3))
                assert tallies.of(maps.read()) == {4: 0}
            assert _seen(agentless, tallies, 4) == (True, 0)
        finally:
            pin.unlink()


# --- walking -----------------------------------------------------------------------------------

_STAYING: Final = 20_000


@pytest.mark.parametrize("type_", [1, 5, 9], ids=["hash", "percpu-hash", "lru-hash"])
def test_a_walk_meets_each_row_that_stays_once_while_others_come_and_go(type_: int) -> None:
    with _made("odm_walked", Shape(type_, ct.c_uint64, ct.c_uint64, 1 << 16, 0, "agent")) as fd:
        walked = libbpf.Map(os.dup(fd), ct.c_uint64, ct.c_uint64, "odm_walked")
        value = (ct.c_uint64 * libbpf.possible_cpus())() if type_ == 5 else 7
        for key in range(_STAYING):
            walked.put(key, value)
        over = threading.Event()

        def come_and_go() -> None:
            while not over.is_set():
                for key in range(_STAYING, _STAYING + 2_000):
                    walked.put(key, value)
                for key in range(_STAYING, _STAYING + 2_000):
                    walked.delete(key)

        others = threading.Thread(target=come_and_go)
        others.start()
        try:
            for _ in range(20):
                met = [key for key, _ in walked.items() if key < _STAYING]
                assert len(met) == _STAYING == len(set(met))
        finally:
            over.set()
            others.join()
            walked.close()


def test_a_walk_of_more_rows_than_one_batch_meets_them_all_in_every_kind_of_map() -> None:
    for type_ in (1, 2):
        with _made("odm_walked", Shape(type_, ct.c_uint32, abi.Addr, 10_000, 0, "agent")) as fd:
            walked = libbpf.Map(os.dup(fd), ct.c_uint32, abi.Addr, "odm_walked")
            try:
                for key in range(10_000):
                    walked.put(key, abi.Addr(w=(key, 0, 0, 1)))
                assert {key: row.w[0] for key, row in walked.items()} == {
                    key: key for key in range(10_000)
                }
            finally:
                walked.close()
