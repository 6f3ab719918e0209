"""S2, S5: the socket option (RFC 8653, appendix A) and the source preferences of RFC 5014."""

import errno
import socket
import struct
from itertools import product
from typing import Final

import pytest

from odm_agent.core.model import AddressType
from tests.lab.cases import each_kind, each_type
from tests.lab.client import (
    IPV6_ADDR_PREFERENCES,
    TYPE_MASK,
    TYPE_SHIFT,
    Kind,
    ask,
    asked,
    exchange,
    outcome,
)
from tests.lab.host import FIXED, NONPERSISTENT, SESSION, type_of
from tests.lab.world import World

# RFC 5014, section 2: one of each group may be asked for.
_TMP, _PUBLIC, _PUBTMP_DEFAULT = 0x1, 0x2, 0x100
_COA, _HOME, _CGA, _NONCGA = 0x4, 0x400, 0x8, 0x800
_FLAGS: Final = [
    sum(each)
    for each in product((0, _TMP, _PUBLIC, _PUBTMP_DEFAULT), (0, _COA, _HOME), (0, _CGA, _NONCGA))
]
_ON_NET, _FRESH = 1 << 19, 1 << 20
_STREAMS_AND_DATAGRAMS: Final = [kind for kind in Kind if kind.connects and not kind.mapped]


@each_type()
@each_kind(*_STREAMS_AND_DATAGRAMS)
def test_S2_type_reads_back_and_is_used(world: World, kind: Kind, type: AddressType) -> None:
    def application() -> tuple[int, str, int]:
        with kind.open() as sock:
            ask(sock, type)
            before = asked(sock)
            return before, exchange(sock, kind).seen, asked(sock)

    before, seen, after = world.place("every").do(application)
    assert before & TYPE_MASK == type << TYPE_SHIFT
    assert after == before
    assert type_of(seen) is type


@pytest.mark.parametrize("bits", [_ON_NET, _FRESH, _ON_NET | _FRESH], ids=hex)
@each_kind(*_STREAMS_AND_DATAGRAMS)
def test_S2_bits_beside_a_type_read_back_until_the_next_set(
    world: World, kind: Kind, bits: int
) -> None:
    def application() -> list[int]:
        with kind.open() as sock:
            values = []
            for wanted in (bits, 0, bits):
                ask(sock, SESSION, wanted)
                values.append(asked(sock))
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 0)
            ask(sock, NONPERSISTENT)
            return [*values, asked(sock)]

    values = world.place("every").do(application)
    session, brief = SESSION << TYPE_SHIFT, NONPERSISTENT << TYPE_SHIFT
    assert [each & ~0xFFF for each in values] == [session | bits, session, session | bits, brief]


@each_kind(Kind.TCP6, Kind.UDP6)
def test_S2_flags_and_type_are_set_and_cleared_apart(world: World, kind: Kind) -> None:
    def application() -> list[int]:
        with kind.open() as sock:
            values = [asked(sock)]
            for value in (FIXED << TYPE_SHIFT, _TMP, _PUBLIC | SESSION << TYPE_SHIFT, 0):
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)
                values.append(asked(sock))
            return values

    stock, typed, flagged, both, cleared = world.place("every").do(application)
    assert typed == stock | FIXED << TYPE_SHIFT
    assert flagged & TYPE_MASK == FIXED << TYPE_SHIFT, "flags alone leave the type"
    assert flagged & _TMP
    assert both & TYPE_MASK == SESSION << TYPE_SHIFT
    assert both & _PUBLIC and not both & _TMP
    assert not cleared & TYPE_MASK, "value 0 clears the type"


@each_kind(*_STREAMS_AND_DATAGRAMS)
def test_S2_cleared_type_means_an_ordinary_address_again(world: World, kind: Kind) -> None:
    def application() -> str:
        with kind.open() as sock:
            ask(sock, FIXED)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 0)
            return exchange(sock, kind).seen

    assert type_of(world.place("every").do(application)) is AddressType.UNSPECIFIED


@each_kind(Kind.TCP4, Kind.UDP4, Kind.MPTCP6)
def test_S2_reading_before_a_type_is_set_fails_as_the_kernel_does(world: World, kind: Kind) -> None:
    def application() -> str:
        with kind.open() as sock:
            return outcome(lambda: asked(sock))

    assert world.place("every").do(application) == _stock_read_error(world, kind)


@pytest.mark.parametrize(
    "value",
    [5 << 16, 6 << 16, 7 << 16, _ON_NET, _FRESH, FIXED << 16 | _FRESH, SESSION << 16 | 1 << 25],
    ids=hex,
)
@each_kind(*_STREAMS_AND_DATAGRAMS)
def test_S2_undefined_values_are_EINVAL_and_store_nothing(
    world: World, kind: Kind, value: int
) -> None:
    def application() -> tuple[str, str]:
        with kind.open() as sock:
            told = outcome(
                lambda: sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)
            )
            return told, exchange(sock, kind).seen

    told, seen = world.place("every").do(application)
    assert told == "EINVAL"
    assert type_of(seen) is AddressType.UNSPECIFIED


def test_S2_conflicting_flags_are_refused_before_the_type_is_stored(world: World) -> None:
    def application() -> tuple[str, int, str]:
        with Kind.TCP6.open() as sock:
            told = outcome(lambda: ask(sock, FIXED, _TMP | _PUBLIC))
            return told, asked(sock), exchange(sock, Kind.TCP6).seen

    told, value, seen = world.place("every").do(application)
    assert told == "EINVAL"
    assert not value & TYPE_MASK
    assert type_of(seen) is AddressType.UNSPECIFIED


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_S2_short_values_are_refused_as_ever(world: World, length: int) -> None:
    def application() -> tuple[str, int]:
        with Kind.TCP6.open() as sock:
            value = struct.pack("=I", FIXED << TYPE_SHIFT)[:length]
            told = outcome(
                lambda: sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)
            )
            return told, asked(sock)

    told, value = world.place("every").do(application)
    assert told == "EINVAL"
    assert not value & TYPE_MASK


def test_S2_long_values_count_as_their_first_four_bytes(world: World) -> None:
    def application() -> str:
        with Kind.TCP6.open() as sock:
            value = struct.pack("=I", FIXED << TYPE_SHIFT) + bytes(8192)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)
            return exchange(sock, Kind.TCP6).seen

    assert type_of(world.place("every").do(application)) is FIXED


def test_S2_listener_with_a_type_passes_it_to_nobody_by_accident(world: World) -> None:
    """On a connected or listening socket the option holds for the next choice only."""

    def application() -> tuple[str, str]:
        with Kind.TCP6.open() as sock:
            first = exchange(sock, Kind.TCP6).local
            ask(sock, FIXED)
            return first, sock.getsockname()[0]

    before, after = world.place("every").do(application)
    assert before == after


@pytest.mark.parametrize("order", ["flags-first", "type-first", "together"])
@each_kind(Kind.TCP6, Kind.UDP6, Kind.SENDTO6)
def test_S5_type_beats_every_combination_of_rfc_5014_flags(
    world: World, kind: Kind, order: str
) -> None:
    def application() -> list[tuple[int, int, str]]:
        found = []
        for flags in _FLAGS:
            with kind.open() as sock:
                if order == "together":
                    ask(sock, SESSION, flags)
                    found.append((flags, asked(sock), exchange(sock, kind).seen))
                    continue
                if order == "type-first":
                    ask(sock, SESSION)
                if flags:
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, flags)
                if order == "flags-first":
                    ask(sock, SESSION)
                found.append((flags, asked(sock), exchange(sock, kind).seen))
        return found

    for flags, value, seen in world.place("every").do(application):
        assert type_of(seen) is SESSION, hex(flags)
        assert value & TYPE_MASK == SESSION << TYPE_SHIFT, hex(flags)
        assert value & 0x3 == flags & 0x3, "the flags are still there, without effect"
    assert len(world.peer.seen()) == len(_FLAGS)


def _stock_read_error(world: World, kind: Kind) -> str:
    """What reading gives where no program of ours is attached."""

    def application() -> str:
        with kind.open() as sock:
            return outcome(lambda: asked(sock))

    told = world.site.host.fork(application)
    assert told in {errno.errorcode[errno.EOPNOTSUPP], errno.errorcode[errno.ENOPROTOOPT]}
    return told
