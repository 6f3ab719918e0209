"""D5: each class has an address of its own, shared by all its sockets, and by no other class."""

import errno
import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, ask, call, exchange, outcome, source_cmsg, talker
from tests.lab.host import (
    CORRESPONDENT,
    FIXED,
    GRACEFUL,
    NONPERSISTENT,
    PREFIXES,
    SESSION,
    prefix_of,
    type_of,
)
from tests.lab.place import Place, Ready
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

_BY_CLASS: Final = {"sharing": "class"}
_ONE: Final = LabClass(allow=TYPES, default=NONPERSISTENT)
_NAMES: Final = ("one", "two")
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "one": _ONE,
        "two": _ONE,
        # Asks, or has none.
        "asking": LabClass(allow=(SESSION,)),
        "other": LabClass(allow=(FIXED,), default=FIXED),
    },
    extra={each.name: _BY_CLASS for each in PREFIXES},
)


def _with(settings: Settings, **classes: LabClass) -> Settings:
    return replace(settings, classes={**settings.classes, **classes})


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which each class has addresses of its own, of all types."""
    with World(tmp_path_factory.mktemp("apart"), _SETTINGS) as made:
        made.place("three")
        yield made


def _named(world: World, name: str | None = None) -> dict[tuple[str, str], str]:
    """The address of each prefix and class, by `odm-agent addresses`: current ones come first."""
    found: dict[tuple[str, str], str] = {}
    for each in world.agent.read("addresses"):
        if each["state"] in ("ready", "tentative") and name in (None, each["class"]):
            found.setdefault((each["prefix"], each["class"]), each["address"])
    return found


def _own(world: World, name: str, type_: AddressType, family: Family) -> str:
    return _named(world)[prefix_of(type_, family).name, name]


def _reload(world: World, settings: Settings) -> None:
    world.agent.configure(settings)
    done = world.agent.reload()
    assert done.returncode == 0, done.stderr


def _in(place: Place, kind: Kind, type_: AddressType = AddressType.UNSPECIFIED) -> str:
    return place.do(lambda: call(kind, type_).seen)


# --- who is given which -----------------------------------------------------------------------


def test_D5_no_two_classes_have_an_address_in_common(apart: World) -> None:
    """Of each prefix, each class that may use its type has one; and none else."""
    named = _named(apart)
    assert len(set(named.values())) == len(named)
    for prefix in PREFIXES:
        having = {name for of, name in named if of == prefix.name}
        assert having == {n for n, each in _SETTINGS.classes.items() if prefix.type in each.allow}


@each_kind(*Kind)
def test_D5_all_sockets_of_a_class_have_its_address_by_default(apart: World, kind: Kind) -> None:
    """Whether bound, marked or sent from there; and none of another class has it."""
    for name in _NAMES:
        own = _own(apart, name, NONPERSISTENT, kind.family)
        place = apart.place(name)
        assert {_in(place, kind) for _ in range(3)} == {own}


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.word)
@each_kind(*Kind)
def test_D5_and_by_the_option(apart: World, kind: Kind, type_: AddressType) -> None:
    seen = {name: _in(apart.place(name), kind, type_) for name in _NAMES}
    assert seen == {name: _own(apart, name, type_, kind.family) for name in _NAMES}


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D5_a_socket_that_has_a_port_already_gets_that_of_its_class(
    apart: World, kind: Kind
) -> None:
    """It can't be bound any more: a mark leads to it, each class's own."""

    def client() -> str:
        with kind.open() as sock:
            sock.bind((kind.wildcard, 0 if kind.stream else 39501))
            return exchange(sock, kind).seen

    seen = {name: apart.place(name).do(client) for name in _NAMES}
    assert seen == {name: _own(apart, name, NONPERSISTENT, kind.family) for name in _NAMES}


@each_kind(Kind.TCP6, Kind.TCP4, Kind.SENDTO6, Kind.SENDTO4)
def test_D5_a_wildcard_becomes_the_address_of_the_class(apart: World, kind: Kind) -> None:
    def server() -> str:
        with kind.open() as sock:
            ask(sock, SESSION)
            sock.bind((kind.wildcard, 0))
            return str(sock.getsockname()[0])

    assert apart.place("asking").do(server) == _own(apart, "asking", SESSION, kind.family)


# --- who may not ------------------------------------------------------------------------------


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_D5_A1_another_classes_address_can_not_be_bound(apart: World, kind: Kind) -> None:
    """Nor one of the prefix that is nobody's, whatever the socket is allowed to bind."""
    theirs = _own(apart, "two", NONPERSISTENT, kind.family)
    nobodys = str(prefix_of(NONPERSISTENT, kind.family).unused())
    assert nobodys not in _named(apart).values()

    def bind(address: str, free: bool = False) -> str:
        with kind.open() as sock:
            if free:
                level, name = ((41, 78), (0, 15))[kind.af == socket.AF_INET]
                sock.setsockopt(level, name, 1)
            return outcome(lambda: sock.bind((address, 0)))

    place = apart.place("one")
    assert place.do(lambda: bind(_own(apart, "one", NONPERSISTENT, kind.family))) == "ok"
    assert place.do(lambda: bind(theirs)) == "EACCES"
    assert place.do(lambda: bind(theirs, free=True)) == "EACCES"
    assert place.do(lambda: bind(nobodys, free=True)) == "EADDRNOTAVAIL"
    assert apart.place("two").do(lambda: bind(theirs)) == "ok"


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
def test_D5_A1_nor_named_by_a_control_message(apart: World, kind: Kind) -> None:
    def send(address: str) -> str:
        with kind.open() as sock:
            message = source_cmsg(address)

            def act() -> None:
                sock.sendmsg([b"hello"], message, 0, kind.destination)
                assert sock.recv(4096).decode().split()[0] == address

            return outcome(act)

    place, addresses = apart.place("one"), {n: _own(apart, n, SESSION, kind.family) for n in _NAMES}
    assert place.do(lambda: send(addresses["one"])) == "ok"
    assert place.do(lambda: send(addresses["two"])) == "EACCES"


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
def test_D5_A1_a_raw_socket_sends_nothing_from_there(apart: World, kind: Kind) -> None:
    """Only at the last gate is it seen from where: both classes may use the type."""
    udp = socket.IPPROTO_UDP
    datagram = b"\x9c\x40" + PORT.to_bytes(2, "big") + (8 + 5).to_bytes(2, "big") + b"\0\0hello"
    addresses = {name: _own(apart, name, SESSION, kind.family) for name in _NAMES}

    def send(address: str) -> str:
        with socket.socket(kind.af, socket.SOCK_RAW, udp) as sock:
            if kind.af == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, 7, 6)  # IPV6_CHECKSUM
            message = source_cmsg(address)
            to = (CORRESPONDENT[kind.family], 0)
            return outcome(lambda: sock.sendmsg([datagram], message, 0, to))

    with apart.captures() as captures:
        place = apart.place("one")
        place.do(lambda: send(addresses["two"]))
        place.do(lambda: send(addresses["one"]))
        seen = set[object]()

        def own_leaves() -> bool:
            seen.update(captures.both())
            return ip_address(addresses["one"]) in seen

        wait_until(own_leaves, "its own leaves", 5)
        time.sleep(0.2)
        assert ip_address(addresses["two"]) not in {*seen, *captures.both()}


@each_kind(Kind.TCP6, Kind.TCP4)
def test_D5_A1_a_wildcard_listener_answers_on_its_own_classes_address_only(
    apart: World, kind: Kind
) -> None:
    def listen(ready: Ready) -> None:
        with kind.open() as sock:
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((kind.wildcard, 39777))
            sock.listen()
            ready("listening")
            while True:
                accepted, _ = sock.accept()
                accepted.close()

    def counted() -> int:
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in apart.agent.metrics().splitlines()
            if 'reason="other-class"' in line and 'hook="ingress"' in line
        )

    before = counted()
    with apart.place("one").background(listen):
        own = _own(apart, "one", SESSION, kind.family)
        theirs = _own(apart, "two", SESSION, kind.family)
        assert "answer" in apart.peer.dial("tcp", own, 39777)
        assert "error" in apart.peer.dial("tcp", theirs, 39777)
    assert counted() > before


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
def test_D5_A1_in_audit_it_is_counted_and_goes_on(apart: World, kind: Kind) -> None:
    before = apart.agent.settings
    _reload(apart, _with(before, one=replace(_ONE, mode="audit")))
    try:
        theirs = _own(apart, "two", SESSION, kind.family)

        def bind() -> str:
            with kind.open() as sock:
                return outcome(lambda: sock.bind((theirs, 0)))

        assert apart.place("one").do(bind) == "ok"
    finally:
        _reload(apart, before)


# --- through time -----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_D5_a_class_comes_and_goes_and_the_others_keep_theirs(apart: World) -> None:
    """By reload; one that comes back while sockets have its address has the same again."""
    before, settings = _named(apart), apart.agent.settings
    _reload(apart, _with(settings, three=_ONE))
    try:
        after = _named(apart)
        assert {key: after[key] for key in before} == before
        new = _named(apart, "three")
        assert len(new) == len(PREFIXES)
        assert set(new.values()).isdisjoint(before.values())
        place = apart.place("three")
        for kind in (Kind.TCP6, Kind.UDP4, Kind.SENDTO6):
            assert _in(place, kind) == new[prefix_of(NONPERSISTENT, kind.family).name, "three"]
        with place.background(talker(Kind.TCP6)) as had, apart.captures() as captures:
            _reload(apart, settings)
            assert _named(apart, None).keys() >= before.keys()
            assert {key: _named(apart)[key] for key in before} == before
            captures.both()
            time.sleep(0.5)
            assert ip_address(had) in captures.both(), "the old connection goes on"
            _reload(apart, _with(settings, three=_ONE))
            assert _in(place, Kind.TCP6) == had
    finally:
        _reload(apart, settings)
    wait_until(lambda: not _named(apart, "three"), "nobody has its addresses", 150)
    assert _named(apart) == before


def test_D5_a_class_that_may_not_use_the_type_any_more_has_none(apart: World) -> None:
    settings = apart.agent.settings
    theirs = _own(apart, "two", SESSION, Family.IPV6)
    less = tuple(each for each in TYPES if each is not SESSION)
    _reload(apart, _with(settings, two=replace(_ONE, allow=less)))
    try:

        def bind() -> str:
            with Kind.TCP6.open() as sock:
                return outcome(lambda: sock.bind((theirs, 0)))

        assert apart.place("two").do(bind) == "EACCES"
        assert apart.place("one").do(bind) in ("EACCES", "EADDRNOTAVAIL")
    finally:
        _reload(apart, settings)


def test_D5_a_restart_keeps_them(apart: World) -> None:
    """Also one after a kill, and with other programs in the place of those in force."""
    before = _named(apart)
    apart.agent.sigkill()
    assert _in(apart.place("two"), Kind.UDP6) == before["brief6", "two"], "in the kernel alone"
    apart.agent.start()
    assert _named(apart) == before
    done = apart.agent.call("upgrade", "-c", str(apart.agent.config))
    assert done.returncode == 0, done.stderr
    assert _in(apart.place("two"), Kind.UDP6) == before["brief6", "two"]
    assert _named(apart) == before


@pytest.mark.parametrize("name", ["brief6", "brief4", "graceful6"])
def test_D5_L3_one_classes_address_rotates_and_the_others_stay(apart: World, name: str) -> None:
    before = _named(apart)
    old = before[name, "one"]
    done = apart.agent.call("rotate", old, "--json", "--socket", str(apart.agent.socket))
    assert done.returncode == 0, done.stderr
    [told] = json.loads(done.stdout)
    assert told["old"] == old
    lease = {
        each["address"]: each
        for each in apart.agent.read("lifetimes")
        if each["prefix"] == name and each["class"] == "one"
    }
    assert lease[told["new"]]["phase"] == "current"
    type_, family = type_of(old), Family(ip_address(old).version)
    kinds = [kind for kind in (Kind.TCP6, Kind.UDP6, Kind.TCP4, Kind.UDP4) if kind.family is family]
    for kind in kinds:
        assert _in(apart.place("one"), kind, type_) == told["new"]
        assert _in(apart.place("two"), kind, type_) == before[name, "two"]
    assert told["new"] not in before.values()


def test_D5_a_fixed_address_does_not_rotate(apart: World) -> None:
    done = apart.agent.call("rotate", "fixed6", "--json", "--socket", str(apart.agent.socket))
    assert done.returncode != 0
    assert "do not end" in done.stderr


_EVERY_S: Final = 6


def _runs(place: Place, kind: Kind, for_s: float) -> Sequence[str]:
    """Every source, in its order, that calls came from for so long; or errors."""

    def calls() -> list[str]:
        until_s, seen = time.monotonic() + for_s, list[str]()
        while time.monotonic() < until_s:
            try:
                source = call(kind).seen
            except OSError as error:
                source = errno.errorcode[error.errno or 0] if error.errno else repr(error)
            if source not in seen:
                seen.append(source)
            time.sleep(0.05)
        return seen

    return place.do(calls, timeout_s=for_s + 30)


@each_kind(Kind.TCP6, Kind.UDP6, Kind.TCP4)
def test_D5_L4_by_time_each_class_goes_from_one_of_its_own_to_the_next(
    tmp_path: Path, kind: Kind
) -> None:
    """And with the agent dead to its spare, then to none: never to another class's."""
    ends = {**_BY_CLASS, "preferred": f"{_EVERY_S}s", "rotate": f"{_EVERY_S}s"}
    settings = replace(
        _SETTINGS,
        classes={"one": _closed(), "two": _closed()},
        extra={"brief6": ends, "brief4": ends},
    )
    with World(tmp_path, settings) as world:
        name = prefix_of(NONPERSISTENT, kind.family).name
        of_two: set[str] = set()
        seen = _runs(world.place("one"), kind, 2.5 * _EVERY_S)
        assert len(seen) >= 2
        assert all(type_of(each) is NONPERSISTENT for each in seen), seen
        of_two |= set(_runs(world.place("two"), kind, 0.5))
        if kind.family is Family.IPV6:  # an IPv4 address may come again, one class at a time
            assert of_two.isdisjoint(seen)

        def has_spares() -> bool:
            """Just made: so they outlive the current ones."""
            leases = [e for e in world.agent.read("lifetimes") if e["prefix"] == name]
            return {e["class"] for e in leases if e["phase"] == "spare"} == {"one", "two"}

        wait_until(has_spares, "each class has a spare", 3 * _EVERY_S)
        leases = [e for e in world.agent.read("lifetimes") if e["prefix"] == name]
        world.agent.sigkill()
        own = {
            n: {e["address"] for e in leases if e["class"] == n and e["phase"] != "lingering"}
            for n in _NAMES
        }
        one = _runs(world.place("one"), kind, 2.5 * _EVERY_S)
        assert set(one[:-1]) <= own["one"] and one[-1] == "EADDRNOTAVAIL", one
        assert own["one"].isdisjoint(own["two"])
        assert _runs(world.place("two"), kind, 0.5) == ["EADDRNOTAVAIL"]


def _closed() -> LabClass:
    return LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed")


def test_D5_L2_L5_each_class_has_its_own_lifetime_and_budget(tmp_path: Path) -> None:
    """What one class sends uses up its own address alone."""
    classes = {
        "one": replace(_ONE, lifetimes={NONPERSISTENT: {"budget": "100kB"}}),
        "two": _ONE,
    }
    settings = replace(_SETTINGS, classes=classes, extra={"brief6": _BY_CLASS})
    with World(tmp_path, settings) as world:
        before = _named(world)

        def much() -> None:
            with Kind.SENDTO6.open() as sock:
                for _ in range(120):
                    with suppress(OSError):  # the next address may not be ready yet
                        sock.sendto(b"x" * 1000, Kind.SENDTO6.destination)

        world.place("one").do(much)

        def has_another() -> bool:
            return _named(world).get(("brief6", "one")) != before["brief6", "one"]

        wait_until(has_another, "the next address is ready", 20)
        assert _in(world.place("one"), Kind.TCP6) == _named(world)["brief6", "one"]
        world.place("two").do(much)
        assert _in(world.place("two"), Kind.TCP6) == before["brief6", "two"]
        leases = world.agent.read("lifetimes")
        budgets = {e["class"]: e["budget_bytes"] for e in leases if e["prefix"] == "brief6"}
        assert budgets == {"one": 100_000, "two": None}


def test_D5_sharing_can_be_changed_and_a_range_that_is_too_small_is_refused(tmp_path: Path) -> None:
    settings = replace(_SETTINGS, extra={})
    with World(tmp_path, settings) as world:
        shared = _in(world.place("one"), Kind.TCP6)
        assert _in(world.place("two"), Kind.TCP6) == shared
        with world.place("one").background(talker(Kind.TCP6)) as had:
            _reload(world, _SETTINGS)
            sources = {name: _in(world.place(name), Kind.TCP6) for name in _NAMES}
            assert len(set(sources.values())) == 2
            assert shared == had
        _reload(world, settings)
        assert len({_in(world.place(name), Kind.TCP6) for name in _NAMES}) == 1
        many = {f"c{n}": _ONE for n in range(7)}
        world.agent.configure(_with(_SETTINGS, **many))
        done = world.agent.reload()
        assert done.returncode != 0
        assert "classes may use the type" in done.stderr


def test_D5_explain_says_the_address_of_the_class(apart: World) -> None:
    for name in _NAMES:
        told = apart.agent.call(
            *("explain", str(apart.place(name).cgroup.path), CORRESPONDENT[Family.IPV6], "--json"),
            *("--socket", str(apart.agent.socket)),
        )
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["source"] == _named(apart)["brief6", name]


def test_D5_graceful_addresses_on_a_link_are_of_one_class_each(apart: World) -> None:
    """IPv4 ones of a range, each checked for conflicts."""
    for kind in (Kind.TCP4, Kind.TCP6):
        seen = {name: _in(apart.place(name), kind, GRACEFUL) for name in _NAMES}
        assert len(set(seen.values())) == 2
        assert {type_of(each) for each in seen.values()} == {GRACEFUL}
