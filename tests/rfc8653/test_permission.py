"""D8, A1: who may have which type: the errno of a refusal, and silence on the wire."""

import socket
from ipaddress import ip_address
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_kind, each_type
from tests.lab.client import IPV6_ADDR_PREFERENCES, Kind, ask, call, exchange, outcome, source_cmsg
from tests.lab.host import (
    CORRESPONDENT_2,
    FIXED,
    LINKS,
    NONPERSISTENT,
    PREFIXES,
    SESSION,
    Captures,
    LabPrefix,
    prefix_of,
    type_of,
)
from tests.lab.metrics import verdicts
from tests.lab.world import PLAIN, World

_UNMAPPED: Final = [kind for kind in Kind if not kind.mapped]
#: Who may not have a Fixed address: no class, a class without types, a class with another type.
_OUTSIDERS: Final = [PLAIN, "nothing", "limited", "brief"]
_IPV6_FREEBIND: Final = 78
_IP_FREEBIND: Final = 15


def _typed(world: World, type: AddressType, kind: Kind) -> str:
    """A real address of the type, spelled for the kind of socket."""
    return kind.spell(world.address(type, kind.family))


@pytest.mark.parametrize("place", _OUTSIDERS)
@each_kind()
def test_D8_A1_asking_for_a_type_that_is_not_allowed_is_EACCES(
    world: World, captures: Captures, kind: Kind, place: str
) -> None:
    def application() -> tuple[list[str], str]:
        with kind.open() as sock:
            told = [outcome(lambda t=t: ask(sock, t)) for t in (FIXED, SESSION)]  # type: ignore[misc]
            return told, exchange(sock, kind).seen

    told, seen = world.place(place).do(application)
    assert told == ["EACCES", "EACCES"]
    expected = NONPERSISTENT if place == "brief" else AddressType.UNSPECIFIED
    assert type_of(seen) is expected, "the socket goes on as if it had not asked"
    _assert_no_costly_source(captures)


@pytest.mark.parametrize("place", _OUTSIDERS)
@each_type(FIXED, SESSION)
@each_kind()
def test_D8_A1_binding_an_address_that_is_not_allowed_is_EACCES(
    world: World, captures: Captures, kind: Kind, type: AddressType, place: str
) -> None:
    source = _typed(world, type, kind)
    told = world.place(place).do(lambda: outcome(lambda: call(kind, bind=(source, 0))))
    assert told == "EACCES"
    _assert_no_costly_source(captures)
    assert not world.peer.seen()


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda each: each.name)
@pytest.mark.parametrize("place", [PLAIN, "nothing"])
def test_D8_A1_a_prefix_is_typed_as_a_whole(
    world: World, captures: Captures, place: str, prefix: LabPrefix
) -> None:
    """Unconfigured addresses can be bound with FREEBIND by anybody: they are refused as well."""
    kind = Kind.UDP6 if prefix.family is Family.IPV6 else Kind.UDP4

    def application() -> None:
        with kind.open() as sock:
            if prefix.family is Family.IPV6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            sock.bind((str(prefix.unused()), 0))
            sock.connect(kind.destination)
            sock.send(b"x")

    assert world.place(place).do(lambda: outcome(application), uid=65534) == "EACCES"
    assert not captures.both()


@pytest.mark.parametrize("place", [PLAIN, "nothing", "limited", "brief"])
@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
@each_kind(Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
def test_D8_A1_naming_a_source_by_control_message_is_EACCES(
    world: World, captures: Captures, kind: Kind, connected: bool, place: str
) -> None:
    source = _typed(world, FIXED, kind)

    def application() -> None:
        with kind.open() as sock:
            if connected:
                sock.connect(kind.destination)
            to = () if connected else (kind.destination,)
            sock.sendmsg([b"x"], source_cmsg(source), 0, *to)

    assert world.place(place).do(lambda: outcome(application)) == "EACCES"
    _assert_no_costly_source(captures)


@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
@each_kind(Kind.UDP6, Kind.UDP4)
def test_D8_source_named_by_control_message_is_used_where_it_is_allowed(
    world: World, kind: Kind, connected: bool
) -> None:
    """It beats the class's default, but never the type that the socket itself asked for."""
    source = world.address(FIXED, kind.family)

    def application(type: AddressType) -> None:
        with kind.open() as sock:
            if type:
                ask(sock, type)
            if connected:
                sock.connect(kind.destination)
            to = () if connected else (kind.destination,)
            sock.sendmsg([b"x"], source_cmsg(source), 0, *to)

    world.place("choosy").do(lambda: application(AddressType.UNSPECIFIED))
    world.place("every").do(lambda: application(FIXED))
    # A connected socket has another local address: the answers are not for it, the record is.
    assert [caller.source for caller in world.peer.seen()] == [source, source]
    told = world.place("every").do(lambda: outcome(lambda: application(SESSION)))
    assert told == "EADDRNOTAVAIL"
    assert not world.peer.seen()


@each_kind()
def test_D8_A1_a_caller_who_may_not_cannot_use_the_socket_of_one_who_may(
    world: World, captures: Captures, kind: Kind
) -> None:
    source = _typed(world, FIXED, kind)
    elsewhere = world.place("nothing").cgroup.procs

    def application() -> str:
        with kind.open() as sock:
            sock.bind((source, 0))
            elsewhere.write_text("0")
            return outcome(lambda: exchange(sock, kind))

    assert world.place("every").do(application) == "EACCES"
    assert not captures.both()


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D8_A1_a_source_that_routing_chooses_is_stopped_at_the_last_gate(
    world: World, captures: Captures, kind: Kind
) -> None:
    """`ip route ... src X` is decided after all hooks that have an errno: egress drops."""
    source = world.address(FIXED, kind.family)
    target = CORRESPONDENT_2[kind.family]
    gateway = str(LINKS["A", kind.family][1])
    bits = 32 if kind.family is Family.IPV4 else 128
    route = (f"{target}/{bits}", "via", gateway, "dev", "w0")
    world.site.host.ip("route", "add", *route, "src", source)
    try:

        def application() -> str:
            with kind.open() as sock:
                sock.settimeout(0.4)
                return outcome(lambda: exchange(sock, kind, (target, kind.port)))

        told = world.place(PLAIN).do(application)
    finally:
        world.site.host.ip("route", "del", *route)
    assert told == ("timeout" if kind.stream else "EPERM")
    _assert_no_costly_source(captures)
    assert not world.peer.seen()


@pytest.mark.parametrize("place", ["fixed", "every"])
@each_kind(*_UNMAPPED)
def test_D8_explicit_bind_of_an_allowed_address_is_kept(
    world: World, kind: Kind, place: str
) -> None:
    source = _typed(world, FIXED, kind)
    assert world.place(place).do(lambda: call(kind, bind=(source, 0))).seen == source


@each_kind()
def test_D8_explicit_choice_that_the_class_may_make_beats_its_default(
    world: World, kind: Kind
) -> None:
    source = _typed(world, FIXED, kind)
    ordinary = kind.spell(world.address(AddressType.UNSPECIFIED, kind.family))
    chosen = world.place("choosy").do(lambda: call(kind, bind=(source, 0)))
    untyped = world.place("choosy").do(lambda: call(kind, bind=(ordinary, 0)))
    by_type = world.place("choosy").do(lambda: call(kind, FIXED))
    assert type_of(chosen.seen) is FIXED
    assert type_of(untyped.seen) is AddressType.UNSPECIFIED
    assert type_of(by_type.seen) is FIXED


@each_kind(*_UNMAPPED)
def test_D8_socket_with_a_type_cannot_bind_an_address_of_another(world: World, kind: Kind) -> None:
    others = [
        _typed(world, SESSION, kind),
        _typed(world, AddressType.UNSPECIFIED, kind),
    ]

    def application() -> list[str]:
        told = []
        for source in others:
            with kind.open() as sock:
                ask(sock, FIXED)
                told.append(outcome(lambda: sock.bind((source, 0))))  # noqa: B023
        for source in others:  # the type comes after the bind: refused when it is used
            with kind.open() as sock:
                sock.bind((source, 0))
                ask(sock, FIXED)
                told.append(outcome(lambda: exchange(sock, kind)))
        return told

    assert world.place("every").do(application) == ["EADDRNOTAVAIL"] * 4


@each_kind(*_UNMAPPED)
def test_D8_strict_class_has_nothing_but_its_types(
    world: World, captures: Captures, kind: Kind
) -> None:
    ordinary = _typed(world, AddressType.UNSPECIFIED, kind)
    session = _typed(world, SESSION, kind)
    place = world.place("strict")
    refused = place.do(lambda: outcome(lambda: call(kind, bind=(ordinary, 0))))
    assert refused == "EACCES"
    assert not captures.both()
    assert type_of(place.do(lambda: call(kind)).seen) is FIXED
    assert type_of(place.do(lambda: call(kind, SESSION)).seen) is SESSION
    assert type_of(place.do(lambda: call(kind, bind=(session, 0))).seen) is SESSION


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D8_audit_refuses_nothing_and_counts_what_it_would(world: World, kind: Kind) -> None:
    source = _typed(world, FIXED, kind)
    before = verdicts(world, "audited", verdict="audit")
    got = world.place("audited").do(lambda: call(kind, bind=(source, 0)))
    assert type_of(got.seen) is FIXED
    assert verdicts(world, "audited", verdict="audit") > before


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D8_audit_still_refuses_values_without_meaning(world: World, kind: Kind) -> None:
    def application() -> str:
        with kind.open() as sock:
            return outcome(
                lambda: sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 7 << 16)
            )

    assert world.place("audited").do(application) == "EINVAL"


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D8_class_that_is_off_counts_as_unclassified(world: World, kind: Kind) -> None:
    source = _typed(world, FIXED, kind)
    place = world.place("off")
    assert type_of(place.do(lambda: call(kind)).seen) is AddressType.UNSPECIFIED
    assert place.do(lambda: outcome(lambda: call(kind, FIXED))) == "EACCES"
    assert place.do(lambda: outcome(lambda: call(kind, bind=(source, 0)))) == "EACCES"


def _assert_no_costly_source(captures: Captures) -> None:
    costly = [prefix_of(type, family) for type in (FIXED, SESSION) for family in Family]
    for source in captures.both():
        assert not any(ip_address(source) in each for each in costly), source
