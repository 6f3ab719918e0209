"""Blocks of addresses in which nothing is typed: what is typed late is seen all the same."""

import socket
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from odm_agent.core.model import Placement
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.catalogue import MAPS
from odm_agent.datapath.maps.blocks import blocks_of
from odm_agent.datapath.maps.writer import MapWriter
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, outcome
from tests.lab.host import FIXED, PREFIXES, LabPrefix
from tests.lab.world import STANDARD, World

_LATE: Final = (
    LabPrefix("late6", FIXED, ip_network("2001:db8:a5::/64"), Placement.DELEGATED, "A"),
    LabPrefix("late4", FIXED, ip_network("203.0.113.128/27"), Placement.DELEGATED, "A"),
)
_IPV6_FREEBIND: Final = 78
_IP_TRANSPARENT: Final = 19


def _taken_out(world: World) -> set[int]:
    """The numbers of the blocks that the programs don't take for untyped."""
    shape, name = MAPS["odm_untyped_blocks"], "odm_untyped_blocks"
    words = libbpf.Map(libbpf.get_pinned(world.agent.pins / name), shape.key, shape.value, name)
    try:
        found = [words.get(at) or 0 for at in range(abi.BLOCK_WORDS)]
    finally:
        words.close()
    return {n for n in range(1 << abi.BLOCK_BITS) if not found[n // 64] >> n % 64 & 1}


def _typed(world: World) -> set[int]:
    """Those of the networks and addresses that are typed."""
    with MapWriter(world.agent.pins) as maps:
        rows = maps.read()
    keys = [*rows.spans, *(ip_network(a) for a, row in rows.sources.items() if row.type)]
    return {number for key in keys for number in blocks_of(key)}


def _agree(world: World) -> None:
    assert _taken_out(world) == _typed(world) != set()


def _ask(world: World, kind: Kind, source: str, prefix: str, option: int) -> str:
    """What becomes of a datagram from anybody's address to a typed one, by a class that may not."""
    [address] = world.agent.addresses(prefix)
    level = socket.IPPROTO_IPV6 if kind is Kind.UDP6 else socket.IPPROTO_IP

    def client() -> None:
        with kind.open() as sock:
            sock.setsockopt(level, option, 1)
            sock.bind((source, 0))
            sock.connect((address, 7))
            sock.send(b"x")

    return world.place("nothing").do(lambda: outcome(client))


def test_A1_address_that_is_typed_late_is_asked_by_nobody_from_elsewhere(tmp_path: Path) -> None:
    """By a datagram over `lo`, whose answer would leave from there."""
    with World(tmp_path) as world:
        _agree(world)
        before = _taken_out(world)
        world.agent.configure(replace(STANDARD, prefixes=(*PREFIXES, *_LATE)))
        assert world.agent.reload().returncode == 0
        _agree(world)
        assert _taken_out(world) > before
        assert _ask(world, Kind.UDP6, "2001:db8:ffff::1", "late6", _IPV6_FREEBIND) == "EPERM"
        assert _ask(world, Kind.UDP4, "203.0.113.250", "late4", _IP_TRANSPARENT) == "EPERM"
        world.agent.sigkill()
        _agree(world)
        world.agent.start()
        _agree(world)
        world.agent.configure(STANDARD)
        assert world.agent.reload().returncode == 0
        eventually(lambda: _taken_out(world) == before, "what is typed no more is untyped")
        _agree(world)
