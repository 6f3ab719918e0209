"""T3, T4, N3: uplinks that others manage change under sockets that are open; each type as it says.

Main's best default route is by w0, towards gateway A; the uplink is w1, towards B.
"""

import errno
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from odm_agent.kernel.echo_socket import EchoSocket
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import LabClass, Settings
from tests.lab.client import Kind, call, exchange, outcome
from tests.lab.host import CORRESPONDENT, FIXED, GRACEFUL, LINKS, NONPERSISTENT, SESSION
from tests.lab.icmp6 import send_on
from tests.lab.metrics import samples
from tests.lab.netns import address
from tests.lab.place import Conversation, Ready
from tests.lab.uplinked import WIFI, host, states, uplinked, way
from tests.lab.world import PLAIN, World
from tests.netlab.mobile import MobileHost, Told
from tests.netlab.probe_client import Message
from tests.unit.sources.ra.test_codec import message, option

#: Within this time of the kernel's news a change is followed, on a machine that is busy.
_AT_ONCE_S: Final = 0.05
#: What gateway B announces first, and after it has lost its memory; it is the router of both.
BEFORE: Final = IPv6Network("2001:db8:b::/64")
AFTER: Final = IPv6Network("2001:db8:b4::/64")
#: Prefix Information option: on link, and for autoconfiguration (RFC 4861, section 4.6.2).
_PIO: Final = 3
_FLAGS: Final = 0xC0
CLASSES: Final = {
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed"),
    "ending": LabClass(
        allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed", on_handover="end"
    ),
}


class Router:
    """Gateway B as a router that announces one prefix: a real radvd, which can lose its memory."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._process: subprocess.Popen[bytes] | None = None

    def announce(self, *prefixes: IPv6Network) -> None:
        """Begin to, every three seconds or so, and at once."""
        for each in prefixes:
            address(self._world.site.b, "to-host", f"{each[1]}/64")
        config = self._folder / "radvd.conf"
        told = "".join(
            f"prefix {each} {{ AdvOnLink on; AdvAutonomous on; AdvPreferredLifetime 3600;"
            " AdvValidLifetime 7200; };\n"
            for each in prefixes
        )
        config.write_text(
            "interface to-host { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
            f"{told} }};\n"
        )
        pid = self._folder / "radvd.pid"
        pid.unlink(missing_ok=True)
        command = ["radvd", "-n", "-C", str(config), "-p", str(pid), "-m", "stderr"]
        self._process = subprocess.Popen(
            self._world.site.b.command(command), stderr=subprocess.DEVNULL
        )

    def lose_memory(self) -> None:
        """The power fails for a second: nothing is said any more, not even that."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
            time.sleep(1.0)


def _autoconfigures(world: World) -> None:
    """The host makes addresses on w1 of what it hears alone."""
    link = world.site.host
    link.sysctl("net/ipv6/conf/w1/accept_ra", "2")
    link.sysctl("net/ipv6/conf/w1/autoconf", "1")
    link.ip("-6", "address", "flush", "dev", "w1", "scope", "global")
    link.ip("-6", "route", "flush", "default", "dev", "w1")
    eventually(lambda: states(world)["wifi/ipv6"] == "withdrawn", "it has heard nothing yet")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """w1 is an uplink of type nonpersistent, and hears router advertisements."""
    with uplinked(tmp_path, {"wifi": WIFI}, CLASSES) as made:
        _autoconfigures(made)
        yield made


@pytest.fixture
def router(world: World, tmp_path: Path) -> Iterator[Router]:
    made = Router(world, tmp_path)
    yield made
    made.lose_memory()


def _given(world: World, place: str = "brief", kind: Kind = Kind.TCP6) -> str:
    """From where a new socket is seen; the errno's word, if it is refused."""

    def application() -> str:
        try:
            return call(kind).seen
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "timeout")

    return world.place(place).do(application)


def _is_out_of(prefix: IPv6Network, source: str) -> bool:
    return ":" in source and ip_address(source) in prefix


def _await_source(world: World, prefix: IPv6Network, timeout_s: float = 20.0) -> None:
    eventually(lambda: _is_out_of(prefix, _given(world)), f"{prefix} serves", timeout_s)


def _held(world: World, prefix: IPv6Network) -> list[str]:
    """The addresses of w1 out of a prefix that are in order."""
    listed = world.site.host.ip("-o", "-6", "address", "show", "dev", "w1", "-deprecated")
    found = [line.split()[3].partition("/")[0] for line in listed.splitlines()]
    return [each for each in found if ip_address(each) in prefix]


def test_N3_a_prefix_that_its_router_has_forgotten_is_given_to_nobody_any_more(
    world: World, router: Router
) -> None:
    """RFC 8978: the old address is preferred for an hour yet, as the kernel has it."""
    router.announce(BEFORE)
    _await_source(world, BEFORE)
    router.lose_memory()
    router.announce(AFTER)
    eventually(lambda: bool(_held(world, AFTER)), "another one is announced", 20)
    eventually(lambda: not _is_out_of(BEFORE, _given(world)), "the old one is given to nobody", 1)
    _await_source(world, AFTER)
    assert _held(world, BEFORE), "whose it is still says that it is in order"
    for _ in range(20):
        assert _is_out_of(AFTER, _given(world))
    shown = {each["address"]: each["state"] for each in world.agent.read("addresses")}
    assert {shown[each] for each in _held(world, BEFORE)} == {"withdrawn"}
    assert {shown[each] for each in _held(world, AFTER)} == {"ready"}


def test_N3_a_forgotten_prefix_is_told_from_one_that_another_router_announces(
    world: World, router: Router
) -> None:
    """Two routers of a link have prefixes of their own: the second one takes nothing's place."""
    router.announce(BEFORE)
    _await_source(world, BEFORE)
    link = world.site.host
    link.ip("-6", "route", "add", "default", "via", "fe80::2", "dev", "w1", "metric", "9000")
    address(world.site.b, "to-host", f"{AFTER[1]}/64")
    _advertise(world, AFTER)
    eventually(lambda: len(world.agent.addresses("wifi/ipv6")) == 2, "both are there", 10)
    time.sleep(5.0)  # the first one announces anew meanwhile
    assert len(world.agent.addresses("wifi/ipv6")) == 2


def test_N3_a_forgotten_prefix_that_is_announced_again_serves_again(
    world: World, router: Router
) -> None:
    router.announce(BEFORE)
    _await_source(world, BEFORE)
    router.lose_memory()
    router.announce(AFTER)
    _await_source(world, AFTER)
    router.lose_memory()
    router.announce(BEFORE, AFTER)
    eventually(lambda: len(world.agent.addresses("wifi/ipv6")) == 2, "both serve", 10)


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_N3_a_gateway_that_changes_is_followed_at_once(
    world: World, family: Family, tmp_path: Path
) -> None:
    """Measured from the kernel's news of main's route to its news of ours."""
    link, first = world.site.host, LINKS["B", family][1]
    address(link, "w1", f"{host('B', family)}/{LINKS['B', family][0].prefixlen}")
    way(world, family)
    eventually(lambda: states(world)[f"wifi/ipv{family}"] == "ready", "it serves", 10)
    time.sleep(1.0)
    took_s: list[float] = []
    with _monitor(world, family, tmp_path / "monitor") as lines:
        for each in range(30, 40):
            gateway = str(first + each)
            way(world, family, via=gateway)
            eventually(lambda g=gateway: len(_told(lines(), g)) >= 2, "both are told", 5)  # type: ignore[misc]
            theirs, ours = _told(lines(), gateway)[:2]
            took_s.append(ours - theirs)
    print(f"IPv{family}: median {median(took_s) * 1e3:.1f} ms, most {max(took_s) * 1e3:.1f} ms")
    assert median(took_s) < _AT_ONCE_S, took_s


@contextmanager
def _monitor(world: World, family: Family, told: Path) -> Iterator[Callable[[], list[str]]]:
    """What the kernel tells of routes, each line with the time at which it was read."""
    command = ["ip", "-ts", f"-{family}", "monitor", "route"]
    with told.open("w") as file:
        process = subprocess.Popen(world.site.host.command(command), stdout=file)
    time.sleep(0.3)
    try:
        yield lambda: told.read_text().splitlines()
    finally:
        process.terminate()
        process.wait(10)


def _told(lines: list[str], gateway: str) -> list[float]:
    """When default routes by a gateway were told of: main's, then that of the uplink's table."""
    line = re.compile(rf"\[(\S+)\] default via {re.escape(gateway)} dev w1 ")
    found = map(line.match, lines)
    return [datetime.fromisoformat(each[1]).timestamp() for each in found if each]


#: ICMP types of an echo request (RFC 792, RFC 4443).
_ASKS: Final = (8, 128)
#: The correspondent, behind both gateways, is asked each second.
_ECHO: Final = {"echo": [*CORRESPONDENT.values()], "echo_interval": "1s"}


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_N3_an_uplink_that_is_up_but_dead_serves_nobody_until_it_answers(
    tmp_path: Path, family: Family
) -> None:
    """Gateway B is there, and leads nowhere; w0 is an uplink, too, that comes second."""
    kind = Kind.TCP6 if family is Family.IPV6 else Kind.TCP4
    uplinks = {"wifi": {**WIFI, **_ECHO, "preference": 1}, "lan": {"interface": "w0", **_ECHO}}
    with uplinked(tmp_path, uplinks, CLASSES) as world:
        row = f"wifi/ipv{family}"
        assert _given(world, kind=kind) == host("B", family)
        time.sleep(4.0)
        assert states(world)[row] == "ready"
        with world.captures() as captures:
            _lead_nowhere(world, "add")
            eventually(lambda: states(world)[row] == "withdrawn", "it is dead", 15)
            assert _given(world, kind=kind) == host("A", family)
            (reason,) = {e["reason"] for e in world.agent.read("prefixes") if e["name"] == row}
            assert f"w1 carries nothing: {CORRESPONDENT[family]} has left 3" in reason
            asked = {str(p.source) for p in captures.at("B").packets() if p.icmp_type in _ASKS}
            assert host("B", family) in asked
            assert not captures.strays()
        _lead_nowhere(world, "del")
        eventually(lambda: states(world)[row] == "ready", "it lives again", 15)
        assert _given(world, kind=kind) == host("B", family)
        assert _given(world, PLAIN, kind) == host("A", family)


def test_N3_without_the_key_nothing_is_asked(tmp_path: Path) -> None:
    with uplinked(tmp_path, {"wifi": WIFI}, CLASSES) as world, world.captures() as captures:
        captures.await_quiet()
        time.sleep(3.0)
        assert not [p for p in captures.at("B").packets() if p.icmp_type in _ASKS]


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_N3_who_is_of_no_class_may_ask_by_a_shared_uplink(tmp_path: Path, family: Family) -> None:
    """As the agent is where it runs below the attach point, and may be held to `refuse`, too."""
    target = ip_address(CORRESPONDENT[family])

    def ask() -> bool:
        asking = EchoSocket("w1", LINKS["B", family][2], target)
        asking.ask(7)
        asking.socket.settimeout(5)
        data = asking.socket.recv(256)
        return asking.is_answer(data, 7) and not asking.is_answer(data, 8)

    with uplinked(tmp_path, {"wifi": WIFI}, CLASSES) as world:
        assert world.place(PLAIN).do(ask)


def _lead_nowhere(world: World, verb: str) -> None:
    """Gateway B is there, and so is its link; what it is sent goes nowhere."""
    for family in ("-4", "-6"):
        world.site.b.ip(family, "rule", verb, "priority", "50", "iif", "to-host", "blackhole")


def test_N3_a_host_that_was_suspended_asks_whether_it_may_keep_its_prefixes(
    tmp_path: Path,
) -> None:
    """It may be at another network, though no link was lost: RFC 8415, section 18.2.12."""
    told = Told({"types": [SESSION.word], "at_start": [SESSION.word]})
    with MobileHost(tmp_path, told, entry="tests.lab.drowsy") as mobile:
        before = mobile.await_prefix(SESSION)
        assert not mobile.since_then(Message.REBIND)
        try:
            time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
        except PermissionError:
            pytest.skip("the clock can't be set here")
        mobile.await_exchange(Message.REBIND)
        assert mobile.await_prefix(SESSION) == before
        assert "the host was suspended" in mobile.agent.log.read_text()


def _advertise(world: World, *prefixes: IPv6Network, lifetime: int = 1800) -> None:
    """Gateway B says so once."""
    options = (
        option(str(each[0]), _FLAGS, code=_PIO, valid=7200, preferred=3600) for each in prefixes
    )
    data = message(*options, lifetime=lifetime)
    world.site.b.call(send_on, "to-host", data)


#: By class and IP version: an address that the manager of w1 gives in place of the one before.
_NEXT: Final = {Family.IPV4: "198.51.100.33", Family.IPV6: "2001:db8:b::33"}
_KINDS: Final = {Family.IPV4: Kind.TCP4, Family.IPV6: Kind.TCP6}
BOTH: Final = pytest.mark.parametrize("family", Family, ids=lambda family: family.name)


def _talk(kind: Kind) -> Callable[[Ready], None]:
    """An application with one connection: it tells its source, then each answer, then its end."""

    def application(ready: Ready) -> None:
        with kind.open() as sock:
            sock.settimeout(0.3)
            ready(exchange(sock, kind).seen)
            while True:
                try:
                    sock.send(b"x")
                    sock.recv(4096)
                    ready("answered")
                except TimeoutError:
                    ready("nothing")
                except OSError as error:
                    ready(errno.errorcode[error.errno or 0])
                    return
                time.sleep(0.05)

    return application


def _hears(talk: Conversation, word: str, within_s: float = 5.0) -> None:
    """Nothing but what the connection may say comes before the word; then it comes."""
    until_s = time.monotonic() + within_s
    while (said := talk.hear()) != word:
        assert said in ("answered", "nothing"), said
        assert time.monotonic() < until_s, f"{word} does not come"


def _outlives(talk: Conversation, for_s: float) -> None:
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        assert talk.hear() in ("answered", "nothing")


def _swap(world: World, family: Family, interface: str = "w1") -> None:
    """The manager gives another address, and takes the one before."""
    length = LINKS["B", family][0].prefixlen
    link = world.site.host
    link.sysctl(f"net/ipv4/conf/{interface}/promote_secondaries", "1")
    address(link, interface, f"{_NEXT[family]}/{length}")
    link.ip("address", "del", f"{host('B', family)}/{length}", "dev", interface)
    way(world, family)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    """w1 is an uplink of type nonpersistent, with addresses that were put there by hand."""
    with uplinked(tmp_path, {"wifi": WIFI}, CLASSES) as made:
        yield made


@BOTH
def test_T3_an_address_that_is_replaced_ends_sockets_of_classes_that_want_it_so(
    plain: World, family: Family
) -> None:
    """They hear at once; others wait, as on any host. New sockets have the new address at once."""
    kind = _KINDS[family]
    with (
        plain.place("ending").conversation(_talk(kind)) as ending,
        plain.place("brief").conversation(_talk(kind)) as kept,
        plain.place(PLAIN).conversation(_talk(kind)) as bystander,
    ):
        assert {ending.hear(), kept.hear()} == {host("B", family)}
        assert bystander.hear() == host("A", family)
        with plain.captures() as captures:
            began_s = time.monotonic()
            _swap(plain, family)
            _hears(ending, "ECONNABORTED")
            took_s = time.monotonic() - began_s
            assert _given(plain, "ending", kind) == _given(plain, kind=kind) == _NEXT[family]
            _outlives(kept, 1.0)
            _outlives(bystander, 0.3)
            assert not captures.strays()
    print(f"IPv{family}: its application heard {took_s * 1e3:.0f} ms after all began")
    (told,) = (e for e in _events(plain, "ended"))
    assert (told["address"], told["detail"]) == (host("B", family), "sockets: 1")


def _events(world: World, kind: str) -> list[dict[str, Any]]:
    said = world.agent.call("events", "--json", "--socket", str(world.agent.socket))
    found = [json.loads(line) for line in said.stdout.splitlines()]
    return [each for each in found if each["event"] == kind]


@BOTH
def test_T3_a_connected_datagram_socket_is_ended_too(plain: World, family: Family) -> None:
    """Who reads hears of it; who writes finds that it is connected no more."""
    kind = Kind.UDP4 if family is Family.IPV4 else Kind.UDP6

    def application(ready: Ready) -> None:
        with kind.open() as sock:
            ready(exchange(sock, kind).seen)
            sock.settimeout(10)
            ready(outcome(lambda: sock.recv(1)))

    with plain.place("ending").conversation(application) as ending:
        assert ending.hear() == host("B", family)
        _swap(plain, family)
        assert ending.hear() == "ECONNABORTED"


@BOTH
@pytest.mark.parametrize("type_", [SESSION, FIXED], ids=lambda type_: type_.word)
def test_N3_sockets_of_types_that_stay_are_ended_by_no_handover(
    tmp_path: Path, family: Family, type_: AddressType
) -> None:
    """The address may come back, as that of a tunnel does, and the connection goes on."""
    kind = _KINDS[family]
    classes = {"ending": LabClass(allow=(type_,), default=type_, on_handover="end")}
    with (
        uplinked(tmp_path, {"wifi": {**WIFI, "type": type_.word}}, classes) as world,
        world.place("ending").conversation(_talk(kind)) as talk,
    ):
        assert talk.hear() == host("B", family)
        _swap(world, family)
        eventually(lambda: _given(world, "ending", kind) == _NEXT[family], "the new one", 5)
        _outlives(talk, 1.0)
        address(world.site.host, "w1", f"{host('B', family)}/{LINKS['B', family][0].prefixlen}")
        _hears(talk, "answered", 20.0)


@BOTH
def test_T4_an_old_address_goes_on_beside_its_successor_until_its_manager_takes_it(
    tmp_path: Path, family: Family
) -> None:
    """Deprecated, as its manager keeps it (RFC 4862, section 5.5.4; dhcpcd does so for IPv4)."""
    kind, link = _KINDS[family], f"{host('B', family)}/{LINKS['B', family][0].prefixlen}"
    graceful = {"ending": LabClass(allow=(GRACEFUL,), default=GRACEFUL, on_handover="end")}
    uplinks = {"wifi": {**WIFI, "type": GRACEFUL.word}}
    with uplinked(tmp_path, uplinks, graceful) as world:
        site = world.site.host
        site.sysctl("net/ipv4/conf/w1/promote_secondaries", "1")
        with world.place("ending").conversation(_talk(kind)) as talk:
            assert talk.hear() == host("B", family)
            address(site, "w1", f"{_NEXT[family]}/{LINKS['B', family][0].prefixlen}")
            site.ip("address", "change", link, "dev", "w1", "preferred_lft", "0")
            eventually(lambda: _given(world, "ending", kind) == _NEXT[family], "the new one", 5)
            for _ in range(20):
                assert talk.hear() == "answered"
            site.ip("address", "del", link, "dev", "w1")
            _hears(talk, "ECONNABORTED")
            way(world, family)
            assert _given(world, "ending", kind) == _NEXT[family]


@BOTH
def test_N3_a_flap_of_the_carrier_ends_nothing(plain: World, family: Family) -> None:
    kind = _KINDS[family]
    with plain.place("ending").conversation(_talk(kind)) as talk:
        assert talk.hear() == host("B", family)
        plain.site.b.ip("link", "set", "to-host", "down")
        eventually(lambda: set(states(plain).values()) == {"withdrawn"}, "it is seen", 5)
        time.sleep(1.0)
        plain.site.b.ip("link", "set", "to-host", "up")
        for each in Family:
            network, near, _ = LINKS["B", each]
            address(plain.site.b, "to-host", f"{near}/{network.prefixlen}")
        _hears(talk, "answered", 20.0)
        eventually(lambda: set(states(plain).values()) == {"ready"}, "it serves again", 10)
        assert _given(plain, "ending", kind) == host("B", family)
    assert not _events(plain, "ended")
    assert _counted(plain, "odm_handovers_total") == {"returned": len(Family)}


@BOTH
def test_T3_another_interface_that_fits_takes_over(tmp_path: Path, family: Family) -> None:
    """For want of a carrier; what is open ends when the manager takes the address away."""
    kind, link = _KINDS[family], f"{host('B', family)}/{LINKS['B', family][0].prefixlen}"
    with uplinked(tmp_path, {"wifi": {"interface": "w*"}}, CLASSES) as world:
        site = world.site.host
        _worse(world, "w0", 9000)
        eventually(lambda: _given(world, kind=kind) == host("B", family), "w1 serves", 10)
        with (
            world.place("ending").conversation(_talk(kind)) as ending,
            world.place("brief").conversation(_talk(kind)) as kept,
            world.captures() as captures,
        ):
            assert {ending.hear(), kept.hear()} == {host("B", family)}
            world.site.b.ip("link", "set", "to-host", "down")
            eventually(lambda: _given(world, kind=kind) == host("A", family), "w0 serves", 5)
            _outlives(ending, 1.0)
            site.ip("address", "del", link, "dev", "w1")
            _hears(ending, "ECONNABORTED")
            _outlives(kept, 0.5)
            assert not captures.strays()
            # To w1 at the beginning, and back, each of both IP versions.
            assert _counted(world, "odm_handovers_total") == {"replaced": 2 * len(Family)}
            fates = {"ended": 1, "lost": 1}  # counted when the pass is over that has ended them
            eventually(lambda: _counted(world, "odm_handover_sockets_total") == fates, "fates", 10)


def _counted(world: World, name: str) -> dict[str, float]:
    """What the agent has counted of handovers of the one type, by outcome or fate."""
    found = {}
    for labels, value in samples(world.agent, name):
        assert labels.pop("type") == NONPERSISTENT.word
        (word,) = labels.values()
        found[word] = value
    return found


def _worse(world: World, interface: str, metric: int) -> None:
    """Main's default routes by an interface get another metric, as their manager likes."""
    letter = {"w0": "A", "w1": "B"}[interface]
    for family in Family:
        gateway = str(LINKS[letter, family][1])
        link = world.site.host
        old = link.ip(f"-{family}", "route", "show", "default", "dev", interface).splitlines()
        link.ip(
            *(f"-{family}", "route", "replace", "default", "via", gateway, "dev", interface),
            *("metric", str(metric)),
        )
        for each in old:
            if f"metric {metric} " not in f"{each} ":
                link.ip(f"-{family}", "route", "del", *each.split(), "dev", interface)


@BOTH
def test_N3_two_interfaces_of_an_uplink_swap_their_roles(tmp_path: Path, family: Family) -> None:
    kind = _KINDS[family]
    with uplinked(tmp_path, {"wifi": {"interface": "w*"}}, CLASSES) as world:
        for _ in range(3):
            for interface, letter in (("w1", "B"), ("w0", "A")):
                with world.place("ending").conversation(_talk(kind)) as ending:
                    ending.hear()
                    other = {"w0": "w1", "w1": "w0"}[interface]
                    _worse(world, other, 9000)
                    _worse(world, interface, 100)
                    eventually(
                        lambda letter=letter: _given(world, kind=kind) == host(letter, family),  # type: ignore[misc]
                        f"{interface} serves",
                        5,
                    )
                    if interface == "w1":
                        _hears(ending, "ECONNABORTED")


@BOTH
def test_N3_two_uplinks_swap_their_roles_and_sockets_stay_where_they_are(
    tmp_path: Path, family: Family
) -> None:
    """Each has a mark and a table of its own, so what is open on the one goes on."""
    kind = _KINDS[family]
    uplinks = {"wifi": {**WIFI, "preference": 1}, "lan": {"interface": "w0"}}
    with (
        uplinked(tmp_path, uplinks, CLASSES) as world,
        world.place("ending").conversation(_talk(kind)) as first,
        world.captures() as captures,
    ):
        assert first.hear() == host("B", family)
        swapped = {"wifi": WIFI, "lan": {"interface": "w0", "preference": 1}}
        world.agent.configure(Settings(classes=CLASSES, uplinks=swapped))
        assert not world.agent.reload().returncode
        assert _given(world, kind=kind) == host("A", family)
        for _ in range(10):
            assert first.hear() == "answered"
        assert not captures.strays()


@BOTH
def test_N3_all_uplinks_are_lost_and_come_back(tmp_path: Path, family: Family) -> None:
    kind = _KINDS[family]
    uplinks = {"wifi": {**WIFI, "preference": 1}, "lan": {"interface": "w0"}}
    with (
        uplinked(tmp_path, uplinks, CLASSES) as world,
        world.place("ending").conversation(_talk(kind)) as ending,
        world.place("brief").conversation(_talk(kind)) as kept,
    ):
        assert ending.hear() == host("B", family) == kept.hear()
        for site in (world.site.a, world.site.b):
            site.ip("link", "set", "to-host", "down")
        eventually(lambda: set(states(world).values()) == {"withdrawn"}, "all are lost", 5)
        assert _given(world, kind=kind) == "EADDRNOTAVAIL"
        time.sleep(1.0)
        for letter, site in (("A", world.site.a), ("B", world.site.b)):
            site.ip("link", "set", "to-host", "up")
            for each in Family:
                network, near, _ = LINKS[letter, each]
                address(site, "to-host", f"{near}/{network.prefixlen}")
        for talk in (ending, kept):
            _hears(talk, "answered", 20.0)
        eventually(lambda: _given(world, kind=kind) == host("B", family), "all is back", 10)


def test_T3_a_prefix_that_its_router_has_forgotten_ends_sockets_too(
    world: World, router: Router
) -> None:
    router.announce(BEFORE)
    _await_source(world, BEFORE)
    with (
        world.place("ending").conversation(_talk(Kind.TCP6)) as ending,
        world.place("brief").conversation(_talk(Kind.TCP6)) as kept,
    ):
        assert ip_address(ending.hear()) in BEFORE and ip_address(kept.hear()) in BEFORE
        router.lose_memory()
        router.announce(AFTER)
        _hears(ending, "ECONNABORTED", 20.0)
        _outlives(kept, 1.0)
