"""S6: default source selection (RFC 6724) of sockets of no class is as without us, in each plan.

The witness is the kernel's own choice: connected UDP sockets of no class to 256 destinations,
before there are typed addresses, beside them and after them.
"""

import ctypes
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family, Placement
from tests.lab.agent import LabClass, Settings
from tests.lab.client import Kind, call
from tests.lab.host import CORRESPONDENT, FIXED, LINKS, PREFIXES, LabPrefix
from tests.lab.netns import NetNs
from tests.lab.process import wait_until
from tests.lab.world import PLAIN, World

#: Spread over all that is routed globally, so that each typed prefix is somebody's longest match.
DESTINATIONS: Final = tuple(f"{0x2000 + 32 * n:x}:{n + 1:x}::{n + 1:x}" for n in range(256))
TYPED: Final = tuple(
    LabPrefix(f"far{n}", FIXED, ip_network(f"{net}::/64"), Placement.DELEGATED, "A")
    for n, net in enumerate(("2a01:db8:f2:0", "2600:db8:f3:0", "3fff:f4:0:0"))
)
SETTINGS: Final = Settings(
    prefixes=(*(p for p in PREFIXES if p.type is FIXED), *TYPED),
    classes={"fixed": LabClass(allow=(FIXED,), default=FIXED)},
)
OWN: Final = f"{LINKS['A', Family.IPV6][2]}/64"
OTHER: Final = f"{LINKS['B', Family.IPV6][2]}/64"
ON_LO: Final = "2001:db8:e::10/128"
#: linux/sched.h, linux/mount.h
_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
NEVER: Final = ("preferred_lft", "0", "valid_lft", "forever")


def _add(host: NetNs, device: str, address: str, *more: str) -> None:
    host.ip("-6", "address", "replace", address, "dev", device, *more, "nodad")


def _own(host: NetNs) -> None:
    _add(host, "w0", OWN)


def _deprecated(host: NetNs) -> None:
    _add(host, "w0", OWN, *NEVER)


def _temporary(host: NetNs) -> None:
    host.sysctl("net/ipv6/conf/w0/use_tempaddr", "2")
    _add(host, "w0", OWN, "mngtmpaddr")


def _on_lo(host: NetNs) -> None:
    _add(host, "lo", ON_LO)


def _deprecated_on_lo(host: NetNs) -> None:
    _add(host, "lo", ON_LO, *NEVER)


def _several_on_lo(host: NetNs) -> None:
    for address in (ON_LO, "2600:e::10/128", "3fff:e::10/128"):
        _add(host, "lo", address)


def _unique_local_on_lo(host: NetNs) -> None:
    _add(host, "lo", "fd00:e::10/128")


def _elsewhere(host: NetNs) -> None:
    _add(host, "w1", OTHER)


def _deprecated_elsewhere(host: NetNs) -> None:
    _add(host, "w1", OTHER, *NEVER)


def _deprecated_here_preferred_on_lo(host: NetNs) -> None:
    _deprecated(host)
    _on_lo(host)


def _two(host: NetNs) -> None:
    _own(host)
    _elsewhere(host)
    _by_b(host)


def _two_deprecated(host: NetNs) -> None:
    _deprecated(host)
    _deprecated_elsewhere(host)
    _by_b(host)


def _two_one_bare(host: NetNs) -> None:
    _own(host)
    _by_b(host)


def _two_bare(host: NetNs) -> None:
    _by_b(host)


def _none(host: NetNs) -> None:
    pass


def _by_b(host: NetNs) -> None:
    host.ip("-6", "route", "add", "3000::/4", "via", "fe80::b", "dev", "w1")


Plan = Callable[[NetNs], None]
PLANS: Final[dict[str, Plan]] = {
    each.__name__.strip("_"): each
    for each in (
        _own,
        _deprecated,
        _temporary,
        _on_lo,
        _deprecated_on_lo,
        _several_on_lo,
        _unique_local_on_lo,
        _elsewhere,
        _deprecated_elsewhere,
        _deprecated_here_preferred_on_lo,
        _two,
        _two_deprecated,
        _two_one_bare,
        _two_bare,
        _none,
    )
}
#: Where typed addresses must be deprecated, or would be chosen before the host's own.
IPV4_FIRST: Final = {"deprecated_on_lo", "unique_local_on_lo", "deprecated_elsewhere"}


def choices(destinations: Sequence[str] = DESTINATIONS) -> list[str]:
    """The kernel's choice for each destination, or the errno."""
    found = []
    for destination in destinations:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((destination, 9))
                found.append(sock.getsockname()[0])
            except OSError as error:
                found.append(f"errno {error.errno}")
    return found


def first_family() -> Family:
    """The family that getaddrinfo puts first for a name that has both.

    The name is in a hosts file that only this process sees.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.NamedTemporaryFile("w") as hosts:
        hosts.writelines(f"{CORRESPONDENT[family]} both.test\n" for family in Family)
        hosts.flush()
        if (
            libc.unshare(_CLONE_NEWNS)
            or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
            or libc.mount(hosts.name.encode(), b"/etc/hosts", None, _MS_BIND, None)
        ):
            raise OSError(ctypes.get_errno(), "a hosts file of its own")
        found = socket.getaddrinfo("both.test", 80, type=socket.SOCK_STREAM)
    assert len(found) == 2, found
    return Family.IPV6 if found[0][0] is socket.AF_INET6 else Family.IPV4


@contextmanager
def bare(folder: Path, settings: Settings = SETTINGS) -> Iterator[World]:
    """A world before its agent is started, whose host has no IPv6 address beyond the links."""
    with World(folder, settings, start=False) as world:
        host = world.site.host
        host.ip("-6", "address", "delete", OWN, "dev", "w0")
        host.ip("-6", "address", "delete", OTHER, "dev", "w1")
        world.place(PLAIN)
        yield world


def chosen(world: World) -> list[str]:
    """The choices of a socket of no class."""
    return world.place(PLAIN).do(choices)


def alarms(world: World) -> list[str]:
    """The agent's alarms about selection."""
    told: list[str] = world.agent.read("status")["alarms"]
    about = ("resolvers of classes put IPv4 first", "are given a typed address")
    return [each for each in told if any(words in each for words in about)]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running agent, for many plans: starting one takes seconds."""
    with bare(tmp_path_factory.mktemp("selection")) as world, world.agent:
        yield world


@pytest.fixture
def world(beside: World) -> Iterator[World]:
    """The agent, without prefixes yet, on a host without an address."""
    _take(beside, ())
    _clear(beside.site.host)
    yield beside


def _take(world: World, prefixes: Sequence[LabPrefix]) -> None:
    world.agent.configure(replace(SETTINGS, prefixes=prefixes))
    world.agent.reload()


def _clear(host: NetNs) -> None:
    host.sysctl("net/ipv6/conf/w0/use_tempaddr", "0")
    for device in ("lo", "w0", "w1"):
        host.ip("-6", "address", "flush", "dev", device, "scope", "global")
    host.ip("-6", "route", "flush", "3000::/4")


@pytest.mark.parametrize("name", PLANS)
def test_S6_sockets_of_no_class_keep_their_sources_in_each_address_plan(
    name: str, world: World
) -> None:
    PLANS[name](world.site.host)
    before = chosen(world)
    labels = world.site.host.ip("-6", "addrlabel")
    _take(world, SETTINGS.prefixes)
    assert chosen(world) == before
    first = world.place("fixed").do(first_family)
    assert first is (Family.IPV4 if name in IPV4_FIRST else Family.IPV6)
    assert bool(alarms(world)) is (name in IPV4_FIRST), "what is not as promised is told"
    _take(world, ())
    assert chosen(world) == before
    assert world.site.host.ip("-6", "addrlabel") == labels
    assert settings_of(world.site.host) == {"0"}


@pytest.mark.parametrize("name", ["deprecated", "on_lo", "none"])
def test_S6_sources_are_those_of_a_host_that_never_had_an_agent(name: str, tmp_path: Path) -> None:
    with bare(tmp_path) as world:
        PLANS[name](world.site.host)
        before = chosen(world)
        labels = world.site.host.ip("-6", "addrlabel")
        with world.agent:
            assert chosen(world) == before
        assert chosen(world) == before, "and after detach"
        assert world.site.host.ip("-6", "addrlabel") == labels
        assert settings_of(world.site.host) == {"0"}


def settings_of(host: NetNs) -> set[str]:
    """The values of use_oif_addrs_only of all interfaces."""
    return set(host.run(["sh", "-c", "cat /proc/sys/net/ipv6/conf/*/use_oif_addrs_only"]).split())


#: Labels of an administrator's beside the host's only address, on lo; and whether they leave the
#: choice to the longest match for some destination.
LABELS: Final[dict[str, tuple[str, bool]]] = {
    "the own address": ("2001:db8:e::/64", True),
    "the own address, on lo": ("2001:db8:e::/64 dev lo", True),
    "the own address, on another interface": ("2001:db8:e::/64 dev w0", False),
    "destinations": ("2a00::/12", True),
    "destinations by the uplink": ("2a00::/12 dev w0", True),
    "all other networks": ("3000::/4", True),
}


@contextmanager
def labelled(host: NetNs, network: str) -> Iterator[None]:
    """A label of an administrator's."""
    host.ip("-6", "addrlabel", "add", "prefix", *network.split(), "label", "99")
    try:
        yield
    finally:
        host.ip("-6", "addrlabel", "del", "prefix", *network.split(), "label", "99")


@pytest.mark.parametrize("name", LABELS)
def test_S6_labels_of_an_administrator_change_no_source(name: str, world: World) -> None:
    network, matters = LABELS[name]
    _on_lo(world.site.host)
    with labelled(world.site.host, network):
        before = chosen(world)
        labels = world.site.host.ip("-6", "addrlabel")
        _take(world, SETTINGS.prefixes)
        assert chosen(world) == before
        first = world.place("fixed").do(first_family)
        assert first is (Family.IPV4 if matters else Family.IPV6)
        assert bool(alarms(world)) is matters, "what is not as promised is told"
        _take(world, ())
        assert chosen(world) == before
        assert world.site.host.ip("-6", "addrlabel") == labels


def test_S6_labels_may_come_and_go_while_the_agent_runs(world: World) -> None:
    """The kernel tells nobody of labels: they are seen with the next event, or within a minute."""
    host = world.site.host
    _on_lo(host)
    _take(world, SETTINGS.prefixes)
    without = chosen(world)
    with labelled(host, LABELS["the own address"][0]):
        _add(host, "w1", "fe80::99/64")
        wait_until(lambda: chosen(world) == without and alarms(world) != [], "seen")
    _drop(host, "w1", "fe80::99/64")
    wait_until(lambda: alarms(world) == [], "seen, too")
    assert chosen(world) == without


UNIQUE_LOCAL: Final = tuple(f"fd{n:02x}::{n + 1:x}" for n in range(64))


def test_S6_networks_of_another_label_keep_their_source_where_a_route_leads_there(
    world: World,
) -> None:
    """A host whose only address is a global one, on lo, and that talks to unique local ones."""
    host = world.site.host
    _on_lo(host)
    host.ip("-6", "route", "add", "fd00::/8", "via", "fe80::a", "dev", "w0")
    try:
        before = world.place(PLAIN).do(lambda: choices(UNIQUE_LOCAL))
        _take(world, SETTINGS.prefixes)
        assert world.place(PLAIN).do(lambda: choices(UNIQUE_LOCAL)) == before
        assert alarms(world) != []
    finally:
        host.ip("-6", "route", "del", "fd00::/8")


CHANGES: Final[tuple[tuple[str, Plan, Plan], ...]] = (
    ("its address becomes deprecated", _own, _deprecated),
    ("it is preferred again", _deprecated, _own),
    ("the first global address comes", _none, _own),
    ("the last global address goes", _own, lambda host: _drop(host, "w0", OWN)),
    ("a better one comes on lo", _deprecated, _on_lo),
    ("the only one comes on lo", _none, _on_lo),
    ("one comes beside that on lo", _on_lo, _own),
    ("only that on lo stays", _deprecated_here_preferred_on_lo, lambda h: _drop(h, "w0", OWN)),
    ("that on lo becomes deprecated", _on_lo, _deprecated_on_lo),
)


def _drop(host: NetNs, device: str, address: str) -> None:
    host.ip("-6", "address", "delete", address, "dev", device)


@pytest.mark.parametrize(("first", "then"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_S6_plans_may_change_while_the_agent_runs(first: Plan, then: Plan, world: World) -> None:
    host = world.site.host
    first(host)
    then(host)
    expected = chosen(world)
    _clear(host)
    first(host)
    _take(world, SETTINGS.prefixes)
    then(host)
    wait_until(lambda: chosen(world) == expected, "as without us", timeout_s=20)


def test_S6_temporary_addresses_may_come_while_the_agent_runs(world: World) -> None:
    host = world.site.host
    _own(host)
    _take(world, SETTINGS.prefixes)
    _temporary(host)
    wait_until(lambda: " temporary" in host.ip("-6", "address"), "a temporary address")
    beside = chosen(world)
    _take(world, ())
    assert chosen(world) == beside


def test_S6_what_somebody_puts_back_is_set_again(world: World) -> None:
    host = world.site.host
    _deprecated(host)
    before = chosen(world)
    _take(world, SETTINGS.prefixes)
    host.sysctl("net/ipv6/conf/w0/use_oif_addrs_only", "0")
    _add(host, "w1", "2001:db8:99::1/64", *NEVER)  # some event or other
    wait_until(lambda: chosen(world) == before, "it is as it was")


def test_what_an_interface_was_set_to_is_put_back_under_its_new_name(tmp_path: Path) -> None:
    with bare(tmp_path) as world:
        host = world.site.host
        with world.agent:
            assert "1" in settings_of(host)
            host.ip("link", "set", "w1", "down")
            host.ip("link", "set", "w1", "name", "new.1")
            host.ip("link", "set", "new.1", "up")
            wait_until(lambda: _known_as(world, "new.1"), "the agent has seen it")
        assert settings_of(host) == {"0"}


def _known_as(world: World, name: str) -> bool:
    database = sqlite3.connect(world.agent.folder / "state" / "state.db")
    with closing(database):
        rows = database.execute("SELECT path FROM changed_sysctls").fetchall()
    return any(f"/{name}/" in path for (path,) in rows)


def test_labels_and_settings_go_without_the_configuration_too(tmp_path: Path) -> None:
    with bare(tmp_path) as world:
        host = world.site.host
        _on_lo(host)
        labels = host.ip("-6", "addrlabel")
        with world.agent:
            assert host.ip("-6", "addrlabel") != labels
            world.agent.configure(replace(SETTINGS, prefixes=(), classes={}))
        assert host.ip("-6", "addrlabel") == labels
        assert settings_of(host) == {"0"}


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.UDP6, Kind.SENDTO6])
def test_S6_host_whose_own_address_is_deprecated_goes_on(kind: Kind, world: World) -> None:
    _deprecated(world.site.host)
    _take(world, SETTINGS.prefixes)
    assert world.place(PLAIN).do(lambda: call(kind)).seen == OWN.partition("/")[0]
    assert alarms(world) == []


def test_an_interface_with_nothing_but_on_link_typed_addresses_is_told_of(world: World) -> None:
    on_link = next(p for p in PREFIXES if p.placement is Placement.ON_LINK and p.family == 6)
    _by_b(world.site.host)
    _take(world, (on_link,))
    assert any("leave by w1 are given a typed address" in each for each in alarms(world))
    _elsewhere(world.site.host)
    wait_until(lambda: alarms(world) == [], "w1 has an address of its own")
