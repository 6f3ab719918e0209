"""T4: MPTCP connections of a class that wants it join from the address that follows theirs.

The witnesses are the peer, whose connection stays one and the same while its subflows come from
both addresses, and captures at the gateways.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family, IPAddress
from tests.lab.agent import LabClass, Settings
from tests.lab.capture import EVERYWHERE, Capture
from tests.lab.host import CORRESPONDENT, GRACEFUL, NONPERSISTENT, PREFIXES, SESSION
from tests.lab.peer import IPPROTO_MPTCP, MPTCP_PORT
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.lab.world import PLAIN, World
from tests.netlab.site import ACCESS
from tests.netlab.streams import TICKS_PORT
from tests.netlab.travelling import CLASSES, Order, Traveller

pytestmark = needs_root

_FOLLOWED: Final = (GRACEFUL, NONPERSISTENT)
_EVERY_S: Final = 0.01
_JOINED_S: Final = 20.0
#: Of connections, each of which has files of its own.
_numbers: Final = itertools.count()
#: An endpoint of somebody else's, with an id such as ours have.
_OTHERS: Final = ("2001:db8:f::1", "226")


def _settings(type_: AddressType, first: str) -> Settings:
    """Prefixes of one type at both gateways, of which those at `first` are given."""
    named = {each.name: each for each in PREFIXES}
    by = {"A": ("fixed6", "fixed4"), "B": ("brief6", "brief4")}
    return Settings(
        prefixes=(
            *(replace(named[name], type=type_) for names in by.values() for name in names),
            named["session6"],
            named["session4"],
        ),
        classes={
            "follows": LabClass(allow=(type_,), default=type_, mptcp="endpoints"),
            "stays": LabClass(allow=(type_,), default=type_),
            "session": LabClass(allow=(SESSION,), default=SESSION),
        },
        extra={name: {"preference": 5} for name in by[first]},
    )


@contextmanager
def _echoes(world: World, path: str, family: Family) -> Iterator[Callable[[], int]]:
    """An MPTCP connection of a class that sends a byte, waits for its echo, and so on.

    Yields what says how many came back; at the end none is missing.
    """
    name = world.agent.folder / f"echoes-{next(_numbers)}"
    count, enough = name.with_suffix(".count"), name.with_suffix(".enough")

    def application(ready: Ready) -> None:
        af = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
        with socket.socket(af, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
            sock.settimeout(25)
            sock.connect((CORRESPONDENT[family], MPTCP_PORT))
            greeting = sock.recv(256)
            assert greeting.endswith(b"\n")
            ready(None)
            echoed = 0
            while not enough.exists():
                byte = bytes([echoed % 251])
                sock.sendall(byte)
                assert sock.recv(64) == byte
                echoed += 1
                count.write_text(str(echoed))
                time.sleep(_EVERY_S)
            ready(echoed)

    def echoed() -> int:
        return int((count.read_text() if count.exists() else "") or 0)

    with world.place(path).conversation(application) as talk:
        talk.hear()
        wait_until(lambda: echoed() > 3, f"{path} has echoes", 20)
        yield echoed
        enough.touch()
        assert talk.hear(30) >= echoed()


def _subflows(world: World) -> list[IPAddress]:
    """From where the peer has MPTCP subflows now."""
    lines = world.site.c.run(
        ["ss", "-Htn", "state", "established", "sport", "=", f":{MPTCP_PORT}"]
    ).splitlines()
    ends = (line.split()[3].rpartition(":")[0].strip("[]") for line in lines)
    return [ip_address(each.removeprefix("::ffff:")) for each in ends]


def _endpoints(world: World) -> set[str]:
    return {
        line.split()[0]
        for line in world.site.host.run(["ip", "mptcp", "endpoint", "show"]).splitlines()
    }


@pytest.fixture(params=_FOLLOWED, ids=lambda each: each.word)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, _settings(request.param, "B")) as made:
        yield made


@pytest.mark.parametrize("family", Family, ids=lambda each: each.name)
def test_T4_an_mptcp_connection_has_the_next_address_before_the_former_goes(
    world: World, family: Family
) -> None:
    type_ = _type_of(world)
    number = family.value
    former, following = (
        ip_address(world.agent.addresses(f"{name}{number}")[0]) for name in ("brief", "fixed")
    )
    world.site.host.run(["ip", "mptcp", "endpoint", "add", _OTHERS[0], "id", _OTHERS[1], "signal"])
    with ExitStack() as stack:
        captures = stack.enter_context(world.captures())
        echoed = {
            path: stack.enter_context(_echoes(world, path, family))
            for path in ("follows", "stays", "session", PLAIN)
        }
        before = _subflows(world)
        assert former in before and following not in before
        assert _endpoints(world) == {_OTHERS[0]}  # nobody needs one yet
        world.agent.configure(_settings(type_, "A"))
        assert not world.agent.reload().returncode
        wait_until(lambda: _subflows(world).count(following) == 2, "they have joined", _JOINED_S)
        assert former in _subflows(world)
        assert _endpoints(world) == {_OTHERS[0], str(following)}
        world.site.b.ip("link", "set", "to-host", "down")
        then = echoed["follows"]()
        wait_until(lambda: echoed["follows"]() > then + 20, "it goes on", 30)
        # Those of classes that may use the type: none of the other class, and no unclassified one.
        assert _subflows(world).count(following) == 2
        assert not captures.strays()
    done = world.agent.call("detach", "-c", str(world.agent.config))
    assert not done.returncode, done.stderr
    assert _endpoints(world) == {_OTHERS[0]}


def test_T4_connections_of_others_send_nothing_from_it(world: World) -> None:
    """They join as well, as far as the kernel goes: what comes of that is ended, and unseen."""
    following = ip_address(world.agent.addresses("fixed6")[0])
    with ExitStack() as stack:
        for path in ("follows", "session", PLAIN):
            stack.enter_context(_echoes(world, path, Family.IPV6))
        capture = stack.enter_context(Capture(world.site.a, "to-host"))
        world.agent.configure(_settings(_type_of(world), "A"))
        assert not world.agent.reload().returncode
        wait_until(lambda: following in _subflows(world), "one has joined", _JOINED_S)
        # A connection that begins now: its subflows the kernel's worker would open.
        with _echoes(world, "session", Family.IPV6):
            time.sleep(1.5)  # longer than a SYN waits for its first retransmission
        ports = {each.source_port for each in capture.packets() if each.source == following}
        assert len(ports) == 1
        left = world.site.host.run(["ss", "-Htn", "state", "syn-sent"])
        assert str(following) not in left
        assert _endpoints(world) == {str(following)}
        without = _settings(_type_of(world), "B")
        kept = tuple(each for each in without.prefixes if each.name != "fixed6")
        world.agent.configure(replace(without, prefixes=kept))
        assert not world.agent.reload().returncode
        wait_until(lambda: not _endpoints(world), "it goes with its address")


def _type_of(world: World) -> AddressType:
    """The type of the prefixes that follow each other."""
    (row,) = (each for each in world.agent.read("prefixes") if each["name"] == "fixed6")
    return AddressType.from_word(row["type"])


_FOLLOWING: Final = {
    **CLASSES,
    **{
        type_.word: LabClass(allow=(type_,), default=type_, mptcp="endpoints")
        for type_ in _FOLLOWED
    },
}


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    with Traveller(tmp_path_factory.mktemp("traveller"), classes=_FOLLOWING) as made:
        yield made


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
@pytest.mark.parametrize("type_", _FOLLOWED, ids=lambda each: each.word)
def test_T4_nothing_is_lost_of_an_mptcp_stream_that_moves(
    traveller: Traveller, type_: AddressType, order: Order
) -> None:
    """Its type's address is another one at each site, which sees what it serves alone: that a
    former graceful-replacement prefix may be, which its network leads to the next site.
    """
    lab = traveller.lab
    with ExitStack() as stack:
        sites = {
            each: stack.enter_context(Capture(each.netns, ACCESS)) for each in lab.sites.values()
        }
        heard = stack.enter_context(Capture(lab.core, EVERYWHERE))
        stream = traveller.open("mptcp", type_, f"follows-{type_.word}-{order.name}")
        with traveller.moving(order) as move:
            traveller.await_attached(move.came)
            stream.await_flow(time.monotonic(), 60)
            left, came = _stream_sources(sites[move.left]), set[IPAddress]()

            def has_joined(there: Capture = sites[move.came], came: set[IPAddress] = came) -> bool:
                came |= _stream_sources(there)
                return bool(came - left)

            wait_until(has_joined, "a subflow comes by the next site", _JOINED_S)
            served = tuple(move.came.routed())
        outcome = stream.stop()
        at_peer = _stream_sources(heard)
    former = ip_address(outcome.source)
    assert (outcome.error, outcome.lost, left) == (None, 0, {former}), outcome
    (following,) = came - {former}
    assert at_peer == {former, following}
    assert all(any(source in network for network in served) for source in came)
    assert type_ is GRACEFUL or former not in came


def _stream_sources(capture: Capture) -> set[IPAddress]:
    return {each.source for each in capture.packets() if each.port == TICKS_PORT}
