"""A full map: nothing breaks, `status` says what does not fit, and with room it heals by itself."""

import ctypes as ct
import itertools
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network, ip_network
from typing import Any, Final, Self

import pytest

from odm_agent.core.errors import DatapathError
from odm_agent.core.model import AddressType, Family, Placement
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.maps.classes import dialogue_share
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, ask, call, outcome
from tests.lab.host import CORRESPONDENT, FIXED, LabPrefix, type_of
from tests.lab.metrics import verdicts
from tests.lab.netns import address
from tests.lab.place import Conversation, Ready
from tests.lab.world import BY_DEFAULT, PLAIN, STANDARD, World

_SHAPES: Final[dict[str, tuple[Any, Any]]] = {
    "odm_cgroups": (ct.c_uint64, abi.Cgroup),
    "odm_resolved": (ct.c_uint64, abi.Cgroup),
    "odm_origins": (abi.Addr, abi.Source),
    "odm_spans": (abi.SpanKey, abi.Source),
    "odm_dialogues": (abi.DialogueKey, abi.Dialogue),
    "odm_verdicts": (abi.VerdictCount, ct.c_uint64),
}
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
#: The agent looks again every two seconds while something is not done.
_HEALS_S: Final = 8.0
_LATE: Final = 27001
_DEAF: Final = 27002
#: Clients ask from here on, where the correspondent listens on none.
_ASKING: Final = 10_000


@contextmanager
def opened(world: World, name: str) -> Iterator[libbpf.Map]:
    pinned = libbpf.Map(libbpf.get_pinned(world.agent.pins / name), *_SHAPES[name], name)
    try:
        yield pinned
    finally:
        pinned.close()


@contextmanager
def filled(world: World, name: str, rows: Iterable[tuple[Any, Any]]) -> Iterator[libbpf.Map]:
    """No room for another row in a map, until this ends."""
    with opened(world, name) as pinned:
        put = []
        full = False
        try:
            for key, value in rows:
                try:
                    pinned.put(key, value)
                except DatapathError as error:
                    assert "is full" in str(error)
                    full = True
                    break
                put.append(key)
            assert full, f"{name} still has room"
            yield pinned
        finally:
            for key in put:
                pinned.delete(key)


def _strangers() -> Iterator[tuple[Any, Any]]:
    for number in range(abi.MAX_SOURCES + 1):
        yield abi.pack_addr(IPv6Address("2001:db8:ffff::") + number), abi.Source()


def _networks() -> Iterator[tuple[Any, Any]]:
    for number in range(1 << 13):
        network = IPv6Network((int(IPv6Address("2001:db8:ffff::")) + (number << 64), 64))
        yield abi.pack_span(network), abi.Source()


def _cgroups() -> Iterator[tuple[Any, Any]]:
    for number in range(1 << 15):
        yield (1 << 50) + number, abi.Cgroup(class_id=0, default_type=abi.DEFAULT_OF_CLASS)


def _all_is_well(world: World) -> None:
    """Untyped and typed sockets of old, and refusals."""
    for kind in _KINDS:
        assert type_of(world.place(PLAIN).do(lambda: call(kind)).seen) is AddressType.UNSPECIFIED  # noqa: B023
        assert type_of(world.place("every").do(lambda: call(kind, FIXED)).seen) is FIXED  # noqa: B023
        for type_, place in BY_DEFAULT.items():
            assert type_of(world.place(place).do(lambda: call(kind)).seen) is type_  # noqa: B023
        source = world.address(FIXED, kind.family)
        told = world.place("limited").do(lambda: outcome(lambda: call(kind, bind=(source, 0))))  # noqa: B023
        assert told == "EACCES"


def _alarms(world: World) -> list[str]:
    found: list[str] = world.agent.read("status")["alarms"]
    return found


def _healed(world: World) -> None:
    eventually(lambda: not _alarms(world), "no alarm is left", _HEALS_S)


def test_new_address_that_finds_no_room_is_told_and_harms_nobody(world: World) -> None:
    """Somebody else's address, and beside it a prefix of ours that needs one."""
    new = LabPrefix("new6", FIXED, ip_network("2001:db8:a5::/64"), Placement.DELEGATED, "A")
    host = world.site.host
    with filled(world, "odm_origins", _strangers()):
        try:
            address(host, "w0", "192.0.2.11/26")
            eventually(lambda: bool(_alarms(world)), "an alarm")
            (alarm,) = _alarms(world)
            assert "192.0.2.11" in alarm and "odm_origins is full" in alarm and "make room" in alarm
            world.agent.configure(replace(STANDARD, prefixes=(*STANDARD.prefixes, new)))
            assert world.agent.reload().returncode == 0
            assert any("2001:db8:a5:" in each for each in _alarms(world))
            assert not world.agent.addresses("new6"), "no address without a verdict"
            assert "2001:db8:a5:" not in host.ip("address", "show", "dev", "lo")
            # What others had before is repaired as ever.
            lost = world.address(FIXED, Family.IPV4)
            host.ip("address", "del", f"{lost}/32", "dev", "lo")
            eventually(lambda: lost in host.ip("address", "show", "dev", "lo"), "it comes back")
            eventually(lambda: bool(world.agent.addresses("fixed4")), "and is used")
            _all_is_well(world)
        finally:
            host.ip("address", "del", "192.0.2.11/26", "dev", "w0")
    eventually(lambda: bool(world.agent.addresses("new6")), "with room it is made", _HEALS_S)
    _healed(world)
    world.agent.configure(STANDARD)
    assert world.agent.reload().returncode == 0
    _all_is_well(world)


def test_new_prefix_that_finds_no_room_is_told_and_harms_nobody(world: World) -> None:
    new = LabPrefix("new6", FIXED, ip_network("2001:db8:a5::/64"), Placement.DELEGATED, "A")
    with filled(world, "odm_spans", _networks()):
        world.agent.configure(replace(STANDARD, prefixes=(*STANDARD.prefixes, new)))
        assert world.agent.reload().returncode == 0
        assert any(
            "typing 2001:db8:a5::/64" in each and "odm_spans is full" in each
            for each in _alarms(world)
        )
        assert not world.agent.addresses("new6")
        assert "2001:db8:a5:" not in world.site.host.ip("address", "show", "dev", "lo")
        _all_is_well(world)
    eventually(lambda: bool(world.agent.addresses("new6")), "with room it is made", _HEALS_S)
    _healed(world)
    world.agent.configure(STANDARD)
    assert world.agent.reload().returncode == 0


def test_new_cgroup_that_finds_no_room_has_no_class_and_is_told(world: World) -> None:
    with filled(world, "odm_cgroups", _cgroups()):
        place = world.place("apps/late.service")
        eventually(lambda: bool(_alarms(world)), "an alarm")
        (alarm,) = _alarms(world)
        assert f"cgroup number {place.cgroup.id}" in alarm and "odm_cgroups is full" in alarm
        assert type_of(place.do(lambda: call(Kind.TCP6)).seen) is AddressType.UNSPECIFIED
        assert place.do(lambda: outcome(lambda: call(Kind.TCP6, FIXED))) == "EACCES"
        _all_is_well(world)
    _healed(world)
    session = AddressType.SESSION_LASTING
    assert type_of(place.do(lambda: call(Kind.TCP6)).seen) is session


def test_verdicts_hold_where_they_cannot_be_counted(world: World) -> None:
    """A reason that was never met before finds no room for its counter."""

    def rows() -> Iterator[tuple[Any, Any]]:
        for number in range(abi.MAX_VERDICTS + 1):
            zeros = (ct.c_uint64 * libbpf.possible_cpus())()
            yield abi.VerdictCount(class_id=1000 + number), zeros

    with opened(world, "odm_verdicts") as pinned:
        for key, _ in list(pinned.items()):
            pinned.delete(key)
    with filled(world, "odm_verdicts", rows()):
        _all_is_well(world)
        assert not verdicts(world, "limited"), "nothing new was counted"
        assert "odm_verdicts_total{" in world.agent.metrics()
    _all_is_well(world)
    assert verdicts(world, "limited") >= len(_KINDS), "counted again"


def test_classes_are_right_while_what_was_resolved_is_forgotten(world: World) -> None:
    """LRU: more cgroups come and go than there is room for."""
    with opened(world, "odm_resolved") as pinned:
        for turn in range(3):
            base = (2 + turn) << 50
            for number in range(pinned.max_entries * 2):
                pinned.put(base + number, abi.Cgroup(class_id=0, epoch=1))
            _all_is_well(world)
        for key in list(pinned.items()):
            with suppress(DatapathError):
                pinned.delete(key[0])


def _late_server(kind: Kind) -> Callable[[Ready], None]:
    """Answers its last caller but one when somebody else says so."""

    def server(ready: Ready) -> None:
        with kind.open() as sock:
            sock.bind((kind.wildcard, _LATE))
            ready(None)
            callers: list[Any] = []
            while True:
                word, caller = sock.recvfrom(64)
                if word == b"answer":
                    sock.sendto(b"answer", callers[-1])
                else:
                    callers.append(caller)
                    ready("noted")

    return server


def _deaf_server(kind: Kind) -> Callable[[Ready], None]:
    def server(ready: Ready) -> None:
        with kind.open() as sock:
            sock.bind((kind.wildcard, _DEAF))
            ready(None)
            signal.pause()

    return server


class _Client:
    """One that asked a late server at `address`, and hears the answer when it wants it."""

    def __init__(self, world: World, kind: Kind, address: str, server: Conversation) -> None:
        self._netns = world.site.c
        self._server = server
        self._ports = itertools.count(_ASKING)
        self._kind = kind
        self.address = address
        self._sock = self._netns.call(self._open)

    def _open(self) -> socket.socket:
        """A socket with a port that no other of this test has."""
        sock = socket.socket(self._kind.af, socket.SOCK_DGRAM)
        sock.settimeout(2)
        sock.bind((CORRESPONDENT[self._kind.family], next(self._ports)))
        return sock

    def __enter__(self) -> Self:
        assert self._server.hear() is None
        self.ask()
        return self

    def __exit__(self, *args: object) -> None:
        self._sock.close()

    def ask(self) -> None:
        """Ask, until the server has noted it."""
        self._sock.sendto(b"question", (self.address, _LATE))
        assert self._server.hear() == "noted"

    def answered_from(self) -> str:
        """The address that the answer comes from."""
        with self._netns.call(lambda: self._open()) as told:
            told.sendto(b"answer", (self.address, _LATE))
        word, sender = self._sock.recvfrom(64)
        assert word == b"answer"
        return str(sender[0])

    def crowd(self, address: str, count: int) -> None:
        """So many others ask a deaf server."""

        def others() -> None:
            for _ in range(count):
                with self._open() as sock:
                    sock.sendto(b"question", (address, _DEAF))

        self._netns.call(others)


def _questions(world: World) -> Counter[int]:
    with opened(world, "odm_dialogues") as pinned:
        return Counter(key.class_id for key, _ in pinned.items())


each_datagram = pytest.mark.parametrize(
    "kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda each: each.name
)


@each_datagram
def test_no_class_makes_the_servers_of_another_forget_who_asked_them(
    world: World, kind: Kind
) -> None:
    """More questions than there were places for all classes together once."""
    untyped = world.address(AddressType.UNSPECIFIED, kind.family)
    with (
        world.place("fixed").conversation(_late_server(kind)) as server,
        world.place("brief").background(_deaf_server(kind)),
        _Client(world, kind, untyped, server) as client,
    ):
        client.crowd(world.address(AddressType.NONPERSISTENT, kind.family), 20_000)
        assert client.answered_from() == untyped
        assert max(_questions(world).values()) <= dialogue_share(range(len(STANDARD.classes) + 1))


@each_datagram
def test_servers_answer_from_the_address_asked_while_thousands_ask_the_same_class(
    world: World, kind: Kind
) -> None:
    """Half of the class's share, asked anew, and as many again: together more than its share."""
    untyped = world.address(AddressType.UNSPECIFIED, kind.family)
    crowd = dialogue_share(range(len(STANDARD.classes) + 1)) * 49 // 100
    with (
        world.place("fixed").conversation(_late_server(kind)) as server,
        world.place("fixed").background(_deaf_server(kind)),
        _Client(world, kind, untyped, server) as client,
    ):
        for _ in range(3):
            client.crowd(world.address(FIXED, kind.family), crowd)
            assert client.answered_from() == untyped
            client.ask()


def test_option_is_taken_by_many_sockets_at_once(world: World) -> None:
    """Socket storage has no limit of its own."""

    def application() -> set[str]:
        socks = [Kind.UDP6.open() for _ in range(500)]
        for sock in socks:
            ask(sock, FIXED)
            sock.connect(Kind.UDP6.destination)
        seen = {sock.getsockname()[0] for sock in socks}
        for sock in socks:
            sock.close()
        return seen

    assert world.place("every").do(application) == {world.address(FIXED, Family.IPV6)}
