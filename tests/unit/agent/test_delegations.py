"""A port is there while its interface is, and the source is told of the link."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from odm_agent.agent import delegations
from odm_agent.agent.delegations import Delegations
from odm_agent.core.clock import Moment
from odm_agent.core.errors import KernelError
from odm_agent.core.events import Tick
from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.core.model import TYPES
from odm_agent.sources.base import Linked, Send
from odm_agent.sources.dhcpv6.settings import Settings

DUID = bytes.fromhex("0004" + "11" * 16)
NAME = "delegation:isp"
ISP = Settings("isp", ("w0",), frozenset(TYPES))
LOCAL = LocalAddress(IPv6Address("fe80::1"), 64, "w0", ours=False)


class Port:
    """A port without a socket."""

    taken: KernelError | None = None

    def __init__(self, interface: str, index: int) -> None:
        if Port.taken is not None:
            raise Port.taken
        self.interface, self.index = interface, index
        self.sent: list[tuple[bytes, str]] = []
        self.dropped = Counter({"too-large": 1})
        self.is_closed = False

    def send(self, data: bytes, to: str) -> None:
        self.sent.append((data, to))

    def close(self) -> None:
        self.is_closed = True


class World:
    """Delegations of one configuration, and what they have said and opened."""

    def __init__(self) -> None:
        self.delegations = Delegations()
        self.fed: list[tuple[str, Any]] = []
        self.forgotten: list[str] = []
        self.ports: list[Any] = []
        self.left: list[Any] = []
        self.delegations.attach(
            lambda name, given: self.fed.append((name, given)), self.forgotten.append, self
        )
        self.configure(ISP)

    def configure(self, *settings: Settings) -> None:
        self.delegations.configure({each.name: each for each in settings}, DUID)

    def listen(self, name: str, port: object) -> None:
        self.ports.append(port)

    def leave(self, port: object) -> None:
        self.left.append(port)

    def told(self) -> list[tuple[str, bool]]:
        found = [(each.interface, each.up) for _, each in self.fed if isinstance(each, Linked)]
        self.fed.clear()
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(delegations, "DhcpPort", Port)
    yield World()
    Port.taken = None


def host(*addresses: LocalAddress, **link: Any) -> HostState:
    return HostState(
        links={"w0": Link("w0", **{"index": 2, "up": True, **link})}, addresses=addresses
    )


def test_a_link_is_one_when_a_link_local_address_is_ready(world: World) -> None:
    look = world.delegations.look
    look(HostState())
    assert world.told() == [("w0", False)] and not world.ports
    look(host())
    look(host(replace(LOCAL, ready=False)))
    look(host(replace(LOCAL, failed=True)))
    look(host(replace(LOCAL, interface="w1")))
    look(host(replace(LOCAL, address=IPv6Address("2001:db8::1"))))
    look(host(LOCAL, up=False))
    look(host(LOCAL, ipv6_fault="carries no IPv6"))
    assert not world.told()
    look(host(LOCAL))
    look(host(LOCAL))
    assert world.told() == [("w0", True)]
    look(host(LOCAL, up=False))
    assert world.told() == [("w0", False)]
    assert len(world.ports) == 1 and not world.left


def test_another_interface_of_the_name_has_another_port(world: World) -> None:
    world.delegations.look(host(LOCAL))
    world.told()
    world.delegations.look(host(LOCAL, index=9))
    assert world.told() == [("w0", False), ("w0", True)]
    first, second = world.ports
    assert world.left == [first]
    assert (first.index, second.index) == (2, 9)
    world.delegations.look(HostState())
    assert world.left == [first, second]
    assert world.told() == [("w0", False)]


def test_a_port_that_is_taken_is_an_alarm_and_tried_again(world: World) -> None:
    Port.taken = KernelError("dhclient (pid 7) has it")
    for _ in range(2):
        with pytest.raises(KernelError, match="dhclient"):
            world.delegations.look(host(LOCAL))
    assert world.told() == [("w0", False)]
    (asked,) = world.delegations.standings()
    assert (asked.linked, asked.trouble) == (False, "dhclient (pid 7) has it")
    Port.taken = None
    world.delegations.look(host(LOCAL))
    assert world.told() == [("w0", True)]
    assert not world.delegations.troubles


def test_what_is_taken_is_no_trouble_when_the_interface_has_gone(world: World) -> None:
    Port.taken = KernelError("dhclient (pid 7) has it")
    with pytest.raises(KernelError):
        world.delegations.look(host(LOCAL))
    world.delegations.look(HostState())
    assert not world.delegations.troubles


def test_messages_leave_by_the_port_and_are_counted_where_there_is_none(world: World) -> None:
    world.delegations.send(NAME, Send(b"x", "ff02::1:2"))
    assert world.delegations.dropped() == {"not-sent": 1}
    world.delegations.look(host(LOCAL))
    world.delegations.send(NAME, Send(b"y", "ff02::1:2"))
    (port,) = world.ports
    assert port.sent == [(b"y", "ff02::1:2")]
    assert world.delegations.dropped() == {"not-sent": 1, "too-large": 1}
    world.delegations.look(HostState())
    assert world.delegations.dropped() == {"not-sent": 1, "too-large": 1}


def test_one_that_is_named_no_more_goes_when_it_holds_nothing(world: World) -> None:
    world.delegations.look(host(LOCAL))
    world.configure()
    assert not world.delegations.standings()
    world.delegations.look(host(LOCAL))
    assert not world.forgotten  # it has not heard of it yet
    (source,) = world.delegations.sources
    source.step(Tick(), Moment(1.0, 1.0))
    world.delegations.look(host(LOCAL))
    assert world.forgotten == [NAME]
    assert world.left == world.ports
    assert not world.delegations.sources


def test_one_that_is_named_again_is_the_same(world: World) -> None:
    (source,) = world.delegations.sources
    world.configure()
    world.configure(ISP)
    assert world.delegations.sources == (source,)
    source.step(Tick(), Moment(1.0, 1.0))
    world.delegations.look(host(LOCAL))
    assert not world.forgotten
    assert [each.name for each in world.delegations.standings()] == ["isp"]


def test_after_a_suspend_sources_are_told_as_if_the_link_had_been_lost(world: World) -> None:
    world.delegations.woken()
    assert not world.told(), "there is no link yet"
    world.delegations.look(host(LOCAL))
    world.told()
    world.delegations.woken()
    assert world.told() == [("w0", False), ("w0", True)]
    world.delegations.look(host())
    world.told()
    world.delegations.woken()
    assert not world.told(), "nor any more"


# --- several interfaces ---

ROAMING = Settings("isp", ("w0", "wl*", "w1"), frozenset(TYPES))


def links(*names: str, down: tuple[str, ...] = ()) -> HostState:
    """Interfaces that are all there; those that are `down` carry nothing."""
    return HostState(
        links={name: Link(name, index=10 + n, up=name not in down) for n, name in enumerate(names)},
        addresses=tuple(replace(LOCAL, interface=name) for name in names),
    )


def roaming(world: World) -> World:
    world.configure(ROAMING)
    return world


def test_it_is_attached_by_the_best_interface_that_carries(world: World) -> None:
    look = roaming(world).delegations.look
    look(links("w1", "wlb", "wla", "w0", "x0", down=("w0",)))
    assert world.told() == [("wlb", True)], "in the order of the configuration, then of the kernel"
    assert [port.interface for port in world.ports] == ["wlb"]
    (asked,) = world.delegations.standings()
    assert (asked.interface, asked.linked) == ("wlb", True)


def test_it_moves_when_its_link_is_lost_and_not_when_a_better_one_comes_back(world: World) -> None:
    look = roaming(world).delegations.look
    look(links("w0", "w1"))
    look(links("w0", "w1", down=("w0",)))
    assert world.told() == [("w0", True), ("w0", False), ("w1", True)]
    first, second = world.ports
    assert world.left == [first] and second.interface == "w1"
    look(links("w0", "w1"))
    assert world.told() == [] and world.left == [first]
    look(links("w0"))
    assert world.told() == [("w1", False), ("w0", True)]


def test_with_no_link_left_it_stays_and_the_first_that_is_back_has_it(world: World) -> None:
    look = roaming(world).delegations.look
    look(links("w0", "w1"))
    look(links("w0", "w1", down=("w0", "w1")))
    assert world.told() == [("w0", True), ("w0", False)]
    assert not world.left
    look(links("w0", "w1", down=("w0",)))
    assert world.told() == [("w1", True)]
    look(HostState())
    assert world.told() == [("w1", False)]
    look(links("w0", "w1"))
    assert world.told() == [("w0", True)]


def test_a_port_that_is_taken_is_no_reason_not_to_ask_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(interface: str, index: int) -> Port:
        if interface == "w0":
            raise KernelError("dhclient (pid 7) has it")
        return Port(interface, index)

    monkeypatch.setattr(delegations, "DhcpPort", opened)
    roaming(world).delegations.look(links("w0", "w1"))
    assert world.told() == [("w1", True)] and not world.delegations.troubles


def test_an_interface_that_is_named_no_more_is_left(world: World) -> None:
    look = roaming(world).delegations.look
    look(links("w0", "w1"))
    world.configure(replace(ROAMING, interfaces=("w1",)))
    look(links("w0", "w1"))
    assert world.told() == [("w0", True), ("w0", False), ("w1", True)]


def test_an_interface_that_was_renamed_or_made_anew_is_another_one(world: World) -> None:
    look = roaming(world).delegations.look
    look(links("w0"))
    look(links("wl7"))
    look(HostState())
    look(links("x", "wl7"))
    assert world.told() == [
        ("w0", True),
        ("w0", False),
        ("wl7", True),
        ("wl7", False),
        ("wl7", True),
    ]


def test_a_loss_that_was_too_short_to_be_seen_is_one(world: World) -> None:
    """The kernel counts it: the host may be attached to another network now."""
    look = world.delegations.look
    look(host(LOCAL, losses=3))
    look(host(LOCAL, losses=3))
    assert world.told() == [("w0", True)]
    look(host(LOCAL, losses=4))
    assert world.told() == [("w0", False), ("w0", True)]
    look(host(LOCAL, losses=5, up=False))
    assert world.told() == [("w0", False)]
    look(host(LOCAL, losses=5))
    assert world.told() == [("w0", True)]
