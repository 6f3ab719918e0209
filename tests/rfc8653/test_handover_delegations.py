"""T1-T4, N3: a host moves from one access site to another, and each type keeps its promise.

Two gateways with a stock Kea each and one lease database; a delegation that may be attached by
either of the host's interfaces. The gateways' captures show that no source comes to a site that it
does not serve, the captures before the host what was asked and answered.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.dissect import Seen, Wire, wire
from tests.netlab.kea import Rules
from tests.netlab.one_link import OneLink
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message
from tests.netlab.roaming import Roamer
from tests.netlab.site import AccessSite
from tests.netlab.streams import Stream, Streams
from tests.netlab.topology import NetLab
from tests.netlab.watch import Watch

pytestmark = needs_root

#: By type, a class that wants its sockets to end, and one that rather waits.
CLASSES: Final = {
    "fixed": LabClass(allow=(FIXED,), default=FIXED, on_handover="end"),
    "session": LabClass(allow=(SESSION,), default=SESSION, on_handover="end"),
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_handover="end"),
    "calm": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    "graceful": LabClass(allow=(GRACEFUL,), default=GRACEFUL, on_handover="end"),
    "drained": LabClass(allow=(GRACEFUL,), default=GRACEFUL),
}
#: What is kept without an application. A session-lasting prefix is there for its sockets alone.
AT_START: Final = (FIXED, NONPERSISTENT, GRACEFUL)
GRACE_S: Final = 12
_LATE_S: Final = 60.0
_PORT: Final = 7171


class Host:
    """A host with an agent, and streams of all classes to the correspondent."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        lab: NetLab,
        *interfaces: str,
    ) -> None:
        self.lab = lab
        words = [each.word for each in TYPES]
        delegation = {
            "interface": list(interfaces),
            "types": words,
            "at_start": [each.word for each in AT_START],
        }
        self.roamer = stack.enter_context(
            Roamer(lab, folder, CLASSES, {"isp": delegation}, entry="tests.lab.restless")
        )
        self.streams = stack.enter_context(Streams(lab))
        self.watch = stack.enter_context(Watch(lab.sites.values(), lab.folder))
        for name in CLASSES:
            self.await_page(name)

    def await_page(self, place: str) -> None:
        """Wait until a class's new sockets reach the correspondent."""

        def comes() -> bool:
            self._pages = getattr(self, "_pages", 0) + 1
            return self.roamer.fetch(place, f"{place}-{self._pages}") == "hello"

        wait_until(comes, f"{place} is served", _LATE_S)

    def source_of_new(self, place: str) -> IPv6Address:
        """From where a new socket of a class is seen."""
        self.await_page(place)
        (seen,) = self.lab.nginx.logged(f"{place}-{self._pages}")
        return IPv6Address(seen)

    def networks(self, type: AddressType) -> dict[IPv6Network, str]:
        """The prefixes of a type that are in the table, each with its interface."""
        return {
            IPv6Network(row["prefix"]): row["interface"]
            for row in self.roamer.agent.read("prefixes")
            if row["type"] == type.word
        }

    def configured(self) -> set[IPv6Address]:
        """All addresses of the host."""
        listed = self.roamer.netns.ip("-o", "-6", "address", "show")
        return {IPv6Address(each.split()[3].partition("/")[0]) for each in listed.splitlines()}

    def await_attached(self, interface: str) -> None:
        """Wait until all types that are kept serve by an interface."""

        def is_there() -> bool:
            rows = self.roamer.agent.read("prefixes")
            ready = {
                r["type"] for r in rows if (r["state"], r["interface"]) == ("ready", interface)
            }
            return ready >= {each.word for each in AT_START}

        wait_until(is_there, f"attached by {interface}", _LATE_S)


def pool(site: AccessSite, type: WireType) -> IPv6Network:
    return SITES[site.plan.letter].pools[type]


class Moved(Host):
    """A host that was at the first site with streams of all classes, and is at the second."""

    def __init__(self, stack: ExitStack, folder: Path, lab: NetLab) -> None:
        super().__init__(stack, folder, lab, "w0", "w1")
        self.wire: Wire = stack.enter_context(wire(lab.mobile, "w1", lab.folder))
        self.before = {name: self.source_of_new(name) for name in CLASSES}
        self.opened: dict[str, Stream] = {
            name: self.streams.open("tcp", name, self.roamer.places[name]) for name in CLASSES
        }
        self.lost_s = lab.a.unplug()
        self.await_attached("w1")
        self.moved_s = time.monotonic()

    def asked(self, type: AddressType) -> list[tuple[Seen, Seen | None]]:
        """What the second site was asked of a type, each with its answer."""
        heard = self.wire.messages()
        wire_type = WireType[type.name]
        return [
            (each, next((a for a in heard if a.xid == each.xid and a is not each), None))
            for each in heard
            if each.message is not Message.REPLY and each.ia.iaid >> 24 == wire_type
        ]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    with ExitStack() as stack:
        lab = stack.enter_context(NetLab(Rules(grace_s=GRACE_S)))
        yield Moved(stack, tmp_path_factory.mktemp("moved"), lab)


def test_T4_both_are_valid_for_the_grace_and_new_sockets_have_the_new_one(moved: Moved) -> None:
    """First of all, since the grace is short."""
    old, new = (pool(each, WireType.GRACEFUL_REPLACEMENT) for each in (moved.lab.a, moved.lab.b))
    assert moved.source_of_new("graceful") in new
    for name in ("graceful", "drained"):
        assert moved.before[name] in old
        moved.opened[name].await_flow(time.monotonic())
    assert moved.before["graceful"] in moved.configured()
    assert time.monotonic() < moved.moved_s + GRACE_S, "within the grace"
    (rebind, answer), *others = moved.asked(GRACEFUL)
    assert rebind.message is Message.REBIND and answer is not None
    (kept,) = answer.ia.prefixes
    assert (kept.preferred, kept.valid) == (0, GRACE_S) and kept.prefix.subnet_of(old)
    assert others[0][0].message is Message.SOLICIT


def test_T4_when_the_grace_is_over_sockets_end_as_their_class_wants_it(moved: Moved) -> None:
    gone = moved.before["graceful"]
    wait_until(lambda: gone not in moved.configured(), "the grace is over", _LATE_S)
    ended = moved.opened["graceful"].stop()
    assert (ended.error, ended.source) == ("ECONNABORTED", str(gone))
    drained = moved.opened["drained"]
    over_s = time.monotonic()
    time.sleep(2.0)
    assert drained.silence_s(over_s) > 1.0
    assert drained.stop().error != "ECONNABORTED"


def test_T1_a_fixed_address_stays_with_all_that_is_sent_from_it(moved: Moved) -> None:
    stream = moved.opened["fixed"]
    stream.await_flow(time.monotonic())
    outcome = stream.stop()
    assert (outcome.error, outcome.lost) == (None, 0) and outcome.got
    assert outcome.source == str(moved.before["fixed"]) == str(moved.source_of_new("fixed"))
    assert list(moved.networks(FIXED).values()) == ["w1"]


def test_T1_a_published_server_goes_on_answering(moved: Moved) -> None:
    address = moved.roamer.source("isp", FIXED)

    def serve(ready: Ready) -> None:
        with socket.create_server((str(address), _PORT), family=socket.AF_INET6) as server:
            ready(None)
            while True:
                caller, _ = server.accept()
                caller.sendall(b"published")

    with moved.roamer.places["fixed"].background(serve):
        called = moved.lab.core.call(socket.socket, socket.AF_INET6, socket.SOCK_STREAM)
        with called:
            called.settimeout(10)
            called.connect((str(address), _PORT))
            assert called.recv(64) == b"published"


def test_T2_a_session_lasting_address_goes_on_and_goes_back_with_its_last_socket(
    moved: Moved,
) -> None:
    (network,) = moved.networks(SESSION)
    stream = moved.opened["session"]
    stream.await_flow(time.monotonic())
    time.sleep(6.0)  # it is looked at again and again
    assert moved.networks(SESSION) == {network: "w1"}
    outcome = stream.stop()
    assert (outcome.error, outcome.lost) == (None, 0) and outcome.got
    assert outcome.source == str(moved.before["session"])
    wait_until(lambda: not moved.networks(SESSION), "it goes back", _LATE_S)

    def is_leased() -> bool:
        return any(each.prefix == network for each in moved.lab.b.kea.leases())

    wait_until(lambda: not is_leased(), "its network knows it", _LATE_S)
    (*_, (release, answer)) = moved.asked(SESSION)
    assert release.message is Message.RELEASE and answer is not None
    assert release.server == answer.server, "it is the second site's server that has it back"


def test_T3_a_nonpersistent_address_goes_with_the_network(moved: Moved) -> None:
    old, new = (pool(each, WireType.NONPERSISTENT) for each in (moved.lab.a, moved.lab.b))
    for name in ("brief", "calm"):
        assert moved.before[name] in old
        assert moved.source_of_new(name) in new
    assert moved.before["brief"] not in moved.configured()


def test_T3_its_sockets_end_at_once_where_their_class_wants_it(moved: Moved) -> None:
    outcome = moved.opened["brief"].stop()
    assert outcome.error == "ECONNABORTED" and outcome.error_s is not None
    assert moved.lost_s < outcome.error_s < moved.moved_s
    (_, answer), *_ = moved.asked(NONPERSISTENT)
    assert answer is not None
    told_s = outcome.error_s - (answer.time_s - time.time() + time.monotonic())
    assert told_s < 1.0, told_s
    calm = moved.opened["calm"]
    assert calm.silence_s(moved.lost_s) > time.monotonic() - moved.moved_s
    assert calm.stop().error != "ECONNABORTED", "sockets of other classes are left alone"


def test_N3_every_binding_is_confirmed_where_the_host_is_attached(moved: Moved) -> None:
    for type in TYPES:
        rebind, answer = moved.asked(type)[0]
        assert rebind.message is Message.REBIND and answer is not None
        given = {each.prefix: each.valid > 0 for each in answer.ia.prefixes}
        (held,) = (each.prefix for each in rebind.ia.prefixes)
        assert given[held] is (type is not NONPERSISTENT)
        assert not (rebind.malformed or answer.malformed)


def test_N3_no_source_comes_to_a_network_that_does_not_serve_it(moved: Moved) -> None:
    assert not moved.watch.strays()
    assert moved.watch.came(moved.lab.b, pool(moved.lab.a, WireType.GRACEFUL_REPLACEMENT))


# --- one interface ---


class Station(Host):
    """A host whose only link moves, as that of a Wi-Fi station does."""

    lab: OneLink

    def await_site(self, letter: str) -> None:
        """Wait until new sockets have the nonpersistent prefix of a site."""
        own = SITES[letter].pools[WireType.NONPERSISTENT]

        def is_there() -> bool:
            rows = self.roamer.agent.read("prefixes")
            ready = [IPv6Network(r["prefix"]) for r in rows if r["state"] == "ready"]
            return any(each.subnet_of(own) for each in ready)

        wait_until(is_there, f"attached to site {letter}", _LATE_S)


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with ExitStack() as stack:
        lab = stack.enter_context(OneLink(Rules(grace_s=GRACE_S)))
        yield Station(stack, tmp_path_factory.mktemp("station"), lab, "w0")


@pytest.mark.parametrize("how", ["moves", "moves and the agent is killed", "made anew", "flap"])
def test_N3_one_interface_that_moves_between_networks(station: Station, how: str) -> None:
    """Main has a default route by the former router all the while."""
    lab, agent = station.lab, station.roamer.agent
    lab.move("a")
    station.await_site("a")
    time.sleep(2.0)  # its link is confirmed by then, wherever it was before
    before = {name: station.source_of_new(name) for name in ("fixed", "session", "brief")}
    opened = {
        name: station.streams.open("tcp", f"{name}-{time.monotonic_ns()}", place)
        for name in before
        if (place := station.roamer.places[name])
    }
    lab.detach()
    time.sleep(1.0)
    if how == "made anew":
        lab.renew()
    elif how == "moves and the agent is killed":
        agent.sigkill()
    lab.attach("a" if how == "flap" else "b")
    if agent.ended:
        agent.start()
    station.await_site("a" if how == "flap" else "b")
    for name in ("fixed", "session"):
        opened[name].await_flow(time.monotonic(), _LATE_S)
        outcome = opened[name].stop()
        assert (outcome.error, outcome.lost, outcome.source) == (None, 0, str(before[name]))
    brief = opened["brief"].stop()
    assert brief.error == (None if how == "flap" else "ECONNABORTED")
    if how != "flap":  # what waits for the gateway's link-layer address comes when that is back
        assert not station.watch.strays()
