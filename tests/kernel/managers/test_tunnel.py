"""T5: ssh from a tunnel's fixed address (wg-quick with its rules), and browsing by Wi-Fi."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.kernel.managers.frame import Manager, theirs
from tests.lab.agent import Settings
from tests.lab.client import PORT, Kind, call, outcome
from tests.lab.host import CORRESPONDENT_2, FIXED
from tests.lab.netns import checked
from tests.lab.uplinked import CLASSES, WIFI, host, seen, states, way
from tests.lab.world import PLAIN, World

_KINDS: Final = (Kind.TCP4, Kind.UDP4, Kind.SENDTO4)
_INNER: Final = "10.200.0.2"
#: The correspondent's other address, behind the tunnel's end.
_FAR: Final = CORRESPONDENT_2[Family.IPV4]


@contextmanager
def _tunnel(folder: Path, allowed: str) -> Iterator[tuple[World, Manager, Manager]]:
    """w1 is a Wi-Fi; a tunnel leads by w0 to the correspondent. The agent is not started."""
    uplinks = {"wifi": dict(WIFI), "vpn": {"interface": "wgc", "type": "fixed"}}
    with ExitStack() as stack:
        settings = Settings(classes=CLASSES, uplinks=uplinks)
        world = stack.enter_context(World(folder, settings, start=False))
        for family in Family:
            way(world, family)
        here, there = (checked(["wg", "genkey"]).strip() for _ in range(2))
        public = [checked(["wg", "pubkey"], input=key).strip() for key in (here, there)]
        near = _quick(
            "wgc", f"{_INNER}/24", here, public[1], allowed, "Endpoint = 203.0.113.1:51821"
        )
        far = _quick(
            "wgs", "10.200.0.1/24", there, public[0], f"{_INNER}/32", "", "ListenPort = 51821"
        )
        server = Manager(world.site.c, folder, far)
        client = Manager(world.site.host, folder, near, world.place(PLAIN).cgroup)
        stack.callback(server.kill)
        stack.callback(client.kill)
        server.start()
        yield world, server, client


def _quick(name: str, inner: str, key: str, peer: str, allowed: str, *more: str) -> str:
    end, *listen = more
    return f"""
mkdir -p /etc/wireguard /run/wireguard
cat > /etc/wireguard/{name}.conf <<'END'
[Interface]
Address = {inner}
PrivateKey = {key}
{"".join(listen)}
[Peer]
PublicKey = {peer}
AllowedIPs = {allowed}
{end}
END
chmod 600 /etc/wireguard/{name}.conf
trap 'wg-quick down {name}' TERM
WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick up {name}
sleep 3600 &
wait
"""


def _seen(world: World, place: str, kind: Kind, to: str = _FAR) -> str:
    return world.place(place).do(lambda: call(kind, to=(kind.spell(to), PORT)).seen)


def _serves(world: World) -> bool:
    found = states(world)
    return {found["wifi/ipv4"], found["vpn/ipv4"]} == {"ready"}


def test_t5_ssh_from_a_tunnel_for_everything_and_browsing_by_wifi(tmp_path: Path) -> None:
    """wg-quick's rules stand before main and behind ours, and all of theirs stays as it was."""
    with _tunnel(tmp_path, "0.0.0.0/0") as (world, _, client):
        client.start()
        eventually(lambda: "51820" in world.site.host.ip("rule"), "wg-quick is up", 20)
        eventually(lambda: _inner(world), "the tunnel leads", 20)
        before = theirs(world.site.host, "wgc")
        world.agent.start()
        eventually(lambda: _serves(world), "both uplinks serve", 10)
        with world.captures() as captures:
            captures.await_quiet()
            for kind in _KINDS:
                assert _seen(world, "sealed", kind) == _INNER
                assert _seen(world, "brief", kind) == host("B", Family.IPV4)
                assert _seen(world, PLAIN, kind) == _INNER, "a tunnel for everything"
            assert not captures.strays()
        assert theirs(world.site.host, "wgc") == before
        assert world.agent.read("status")["alarms"] == []


def test_t5_a_tunnel_for_everything_comes_after_us_and_goes(tmp_path: Path) -> None:
    """wg-quick's rule then stands before ours: an alarm, whose remedy helps; it ends with the rule.

    Meanwhile what is typed by the other uplink is refused, and never goes by the tunnel; IPv6,
    which the tunnel does not take, goes on throughout.
    """
    with _tunnel(tmp_path, "0.0.0.0/0") as (world, _, client):
        link = world.site.host
        world.agent.start()
        eventually(lambda: states(world)["wifi/ipv4"] == "ready", "the Wi-Fi serves", 10)
        client.start()
        eventually(lambda: _inner(world), "the tunnel leads", 20)
        eventually(lambda: len(_alarms(world)) == 1, "it is an alarm", 10)
        (alarm,) = _alarms(world)
        assert "lookup 51820) stands before ours and takes the packets of wifi/ipv4" in alarm
        before = theirs(link, "wgc")
        with world.captures() as captures:
            captures.await_quiet()
            for kind in _KINDS:
                assert _seen(world, "sealed", kind) == _seen(world, PLAIN, kind) == _INNER
                assert _outcome(world, "brief", kind) in ("EPERM", "timeout")
            assert seen(world, "brief", Kind.TCP6) == host("B", Family.IPV6)
            assert seen(world, PLAIN, Kind.TCP6) == host("A", Family.IPV6)
            assert not captures.strays()
        assert theirs(link, "wgc") == before
        link.run(["bash", "-ec", alarm.split("`")[1]])  # what the alarm says that helps
        eventually(lambda: not _alarms(world), "nothing stands before ours", 10)
        for kind in _KINDS:
            assert _seen(world, "sealed", kind) == _seen(world, PLAIN, kind) == _INNER
            assert _seen(world, "brief", kind) == host("B", Family.IPV4)
        client.stop()
        eventually(lambda: "51820" not in link.ip("rule"), "wg-quick has ended", 20)
        eventually(lambda: states(world)["vpn/ipv4"] == "withdrawn", "the tunnel is gone", 10)
        for kind in _KINDS:
            assert _seen(world, "brief", kind) == host("B", Family.IPV4)
            assert _seen(world, PLAIN, kind) == host("A", Family.IPV4)
            assert _outcome(world, "sealed", kind) == "EADDRNOTAVAIL"


def _alarms(world: World) -> list[str]:
    """Of rules, not of an uplink that is not there."""
    return [each for each in world.agent.read("status")["alarms"] if "rule" in each]


def _outcome(world: World, place: str, kind: Kind) -> str:
    return world.place(place).do(lambda: outcome(lambda: call(kind, to=(kind.spell(_FAR), PORT))))


def test_t5_ssh_from_a_tunnel_to_some_networks(tmp_path: Path) -> None:
    """It comes after us, goes, and comes again."""
    with _tunnel(tmp_path, f"10.200.0.0/24, {_FAR}/32") as (world, _, client):
        world.agent.start()
        client.start()
        eventually(lambda: _serves(world), "both uplinks serve", 20)
        eventually(lambda: _inner(world), "the tunnel leads", 20)
        for kind in _KINDS:
            assert _seen(world, "sealed", kind) == _INNER
        client.kill()
        eventually(lambda: not _serves(world), "the tunnel is gone", 10)
        with pytest.raises(OSError, match="assign requested address"):
            _seen(world, "sealed", Kind.TCP4)
        client.start()
        eventually(lambda: _serves(world), "it is back", 20)
        eventually(lambda: _inner(world), "and leads", 20)
        assert _seen(world, "sealed", Kind.TCP4) == _INNER
        assert FIXED.word in {each["type"] for each in world.agent.read("prefixes")}


def _inner(world: World) -> bool:
    try:
        world.site.host.run(["ping", "-c", "1", "-W", "1", "10.200.0.1"])
    except AssertionError:
        return False
    return True
