"""S8: hosts without support, foreign namespaces, and agents that died."""

import errno
import platform
import socket
import struct
from collections.abc import Iterator

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab import compat
from tests.lab.agent import Settings
from tests.lab.cases import each_kind, each_type
from tests.lab.cgroup import Cgroup
from tests.lab.client import (
    IPV6_ADDR_PREFERENCES,
    TYPE_MASK,
    TYPE_SHIFT,
    Kind,
    ask,
    asked,
    call,
    exchange,
    outcome,
)
from tests.lab.host import FIXED, PREFIXES, SESSION, Site, type_of
from tests.lab.place import Place
from tests.lab.world import BY_DEFAULT, CLASSES, World

_UNTYPED = AddressType.UNSPECIFIED


def with_fallback(kind: Kind) -> tuple[str, str]:
    """The documented way to ask: set, read back, go on without if it isn't there."""
    with kind.open() as sock:

        def supported() -> None:
            ask(sock, FIXED)
            if not asked(sock) & TYPE_MASK:
                raise OSError(errno.ENOTSUP, "no support")

        return outcome(supported), exchange(sock, kind).seen


@pytest.fixture(scope="module")
def bare() -> Iterator[Place]:
    """A site and a cgroup where no agent ever was."""
    with Site() as site, Cgroup("bare") as cgroup:
        yield Place(cgroup, site.host)


@each_kind()
def test_S8_host_without_agent_says_so_and_the_same_program_falls_back(
    bare: Place, world: World, kind: Kind
) -> None:
    told, seen = bare.do(lambda: with_fallback(kind))
    stock = "ENOTSUP" if kind.af == socket.AF_INET6 and not kind.mptcp else "ENOPROTOOPT"
    assert told == stock
    assert type_of(seen) is _UNTYPED
    told, seen = world.place("every").do(lambda: with_fallback(kind))
    assert told == "ok"
    assert type_of(seen) is FIXED


@each_kind()
def test_S8_class_that_may_not_is_told_so_and_can_fall_back(world: World, kind: Kind) -> None:
    told, seen = world.place("nothing").do(lambda: with_fallback(kind))
    assert told == "EACCES"
    assert type_of(seen) is _UNTYPED


@each_kind()
def test_S8_foreign_namespace_in_the_same_cgroup_is_a_host_without_agent(
    bare: Place, world: World, kind: Kind
) -> None:
    for name in ("every", "fixed", "strict", "nothing"):
        foreign = Place(world.place(name).cgroup, bare.netns)
        told, seen = foreign.do(lambda: with_fallback(kind))
        assert told not in ("ok", "EACCES")
        assert type_of(seen) is _UNTYPED


@pytest.mark.skipif(platform.machine() != "x86_64", reason="32-bit system calls of x86")
def test_S8_32_bit_program_finds_a_host_without_support(world: World) -> None:
    """Its options pass the hooks by, in both directions; its addresses don't."""

    def application() -> tuple[int, int, str, int, int, str]:
        with Kind.TCP6.open() as sock:
            value = struct.pack("@I", FIXED << TYPE_SHIFT)
            compat.set_option(sock.fileno(), socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)
            own = (_asked_by_32_bits(sock) & TYPE_MASK, asked(sock) & TYPE_MASK)
            seen = exchange(sock, Kind.TCP6).seen
        with Kind.TCP6.open() as sock:
            ask(sock, FIXED)
            others = (_asked_by_32_bits(sock) & TYPE_MASK, asked(sock) & TYPE_MASK)
            return *own, seen, *others, exchange(sock, Kind.TCP6).seen

    compat.prepare()
    by_32, by_64, seen, of_another, its_own, seen_of_another = world.place("every").do(application)
    assert (by_32, by_64, type_of(seen)) == (0, 0, _UNTYPED)
    assert (of_another, its_own) == (0, FIXED << TYPE_SHIFT)
    assert type_of(seen_of_another) is FIXED


def _asked_by_32_bits(sock: socket.socket) -> int:
    return compat.get_option(sock.fileno(), socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES)


# --- an agent that dies ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of our own, whose agent was killed: only what it pinned is left."""
    with World(tmp_path_factory.mktemp("mortal")) as made:
        made.agent.sigkill()
        yield made


@each_type()
@each_kind()
def test_S8_dead_agent_leaves_selection_at_work(
    mortal: World, kind: Kind, type: AddressType
) -> None:
    asked_for = mortal.place("every").do(lambda: call(kind, type))
    by_default = mortal.place(BY_DEFAULT[type]).do(lambda: call(kind))
    assert {type_of(asked_for.seen), type_of(by_default.seen)} == {type}


@each_kind()
def test_S8_A1_dead_agent_leaves_refusals_in_force(mortal: World, kind: Kind) -> None:
    with mortal.captures() as captures:
        told, seen = mortal.place("nothing").do(lambda: with_fallback(kind))
        assert told == "EACCES"
        assert {str(source) for source in captures.both()} == {seen}


def test_S8_new_child_of_a_class_is_classified_without_the_agent(mortal: World) -> None:
    got = mortal.place("fixed/born-later").do(lambda: call(Kind.TCP6))
    assert type_of(got.seen) is FIXED


# --- types that the host does not have ------------------------------------------------------------


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Session-lasting IPv6 is all that this host has."""
    settings = Settings(
        prefixes=[each for each in PREFIXES if each.name == "session6"], classes=CLASSES
    )
    with World(tmp_path_factory.mktemp("poor"), settings) as made:
        yield made


@each_kind()
def test_S8_D1_type_without_an_address_is_EADDRNOTAVAIL_and_nothing_leaves(
    poor: World, kind: Kind
) -> None:
    """Never an ordinary address in its place; the socket can then be used without a type."""

    def application() -> tuple[str, str]:
        with kind.open() as sock:
            ask(sock, FIXED)
            told = outcome(lambda: exchange(sock, kind))
        return told, call(kind).seen

    with poor.captures() as captures:
        told, seen = poor.place("every").do(application)
        assert told == "EADDRNOTAVAIL"
        assert {str(source) for source in captures.both()} == {seen}
    assert type_of(seen) is _UNTYPED


@each_kind()
def test_S8_D1_default_type_without_an_address_fails_closed_for_costly_types(
    poor: World, kind: Kind
) -> None:
    told = poor.place("fixed").do(lambda: outcome(lambda: call(kind)))
    assert told == "EADDRNOTAVAIL"
    told = poor.place("session").do(lambda: outcome(lambda: call(kind)))
    assert told == ("ok" if kind.family is Family.IPV6 else "EADDRNOTAVAIL")


@each_kind()
def test_S8_D1_default_type_without_an_address_stays_open_for_cheap_types(
    poor: World, kind: Kind
) -> None:
    assert type_of(poor.place("brief").do(lambda: call(kind)).seen) is _UNTYPED


def test_D1_one_address_of_one_type_is_used(poor: World) -> None:
    assert len(poor.agent.read("addresses")) == 1
    seen = {poor.place("every").do(lambda: call(Kind.TCP6, SESSION)).seen for _ in range(5)}
    assert seen == {poor.address(SESSION, Family.IPV6)}
