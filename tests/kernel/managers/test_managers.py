"""N2, N3: what managers of Debian put on an uplink serves, and nothing of theirs is touched."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.kernel.managers.frame import Manager, gateway, settled, theirs
from tests.lab.agent import Settings
from tests.lab.client import Kind, call, outcome
from tests.lab.host import CORRESPONDENT, LINKS
from tests.lab.uplinked import CLASSES, WIFI, host, seen, states
from tests.lab.world import PLAIN, World

_NETWORKD: Final = """
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp \
    /run/systemd/network /var/lib/systemd/network
cat > /run/systemd/network/w1.network <<'END'
[Match]
Name=w1
[Network]
DHCP=ipv4
IPv6AcceptRA=yes
IPv6PrivacyExtensions=yes
LinkLocalAddressing=ipv6
END
chown -R systemd-network /run/systemd/netif /var/lib/systemd/network
export SYSTEMD_LOG_TARGET=console RUNTIME_DIRECTORY=/run/systemd/netif \
    STATE_DIRECTORY=/var/lib/systemd/network
caps=+net_admin,+net_raw,+net_bind_service,+net_broadcast
setpriv --reuid systemd-network --regid systemd-network --clear-groups --inh-caps $caps \
    --ambient-caps $caps --bounding-set $caps /lib/systemd/systemd-networkd
"""
_DHCLIENT: Final = """
printf 'initial-interval 1;\\nretry 5;\\nbackoff-cutoff 2;\\n' > /run/c
dhclient -4 -v -d -cf /run/c -lf /run/l -pf /run/p w1
"""
_DHCPCD: Final = """
printf 'noipv4ll\\nnoarp\\nnohook resolv.conf\\n' > /run/c
dhcpcd -B -d -f /run/c w1
"""
#: Debian's package, unpacked by scripts/setup.
_NM_USR: Final = Path(sys.prefix) / "network-manager" / "usr"
_NETWORK_MANAGER: Final = f"""
mkdir -p /run/.over/usr/up /run/.over/usr/work
mount -t overlay overlay -o lowerdir={_NM_USR}:/usr,upperdir=/run/.over/usr/up,\
workdir=/run/.over/usr/work /usr
mkdir -p /etc/NetworkManager/system-connections /var/lib/NetworkManager
cat > /etc/NetworkManager/NetworkManager.conf <<'END'
[main]
plugins=keyfile
dhcp=internal
dns=none
rc-manager=unmanaged
no-auto-default=*
auth-polkit=false
[keyfile]
unmanaged-devices=except:interface-name:w1
END
cat > /etc/NetworkManager/system-connections/w1.nmconnection <<'END'
[connection]
id=w1
type=ethernet
interface-name=w1
[ipv4]
method=auto
[ipv6]
method=auto
addr-gen-mode=0
ip6-privacy=2
END
chmod 600 /etc/NetworkManager/system-connections/*
dbus-daemon --system --nopidfile --fork
NetworkManager --debug
"""
_SCRIPTS: Final = {
    "networkd": _NETWORKD,
    "dhclient": _DHCLIENT,
    "dhcpcd": _DHCPCD,
    "NetworkManager": _NETWORK_MANAGER,
}
#: T1 of the leases that are renewed in a test's time, in seconds.
_RENEW_S: Final = 15
_DHCP_SERVER: Final = 67
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO4, Kind.SENDTO6)


@contextmanager
def _managed(
    folder: Path, script: str, *, exclusive: bool = False, renew_s: int = 0
) -> Iterator[tuple[World, Manager]]:
    """A host of which nobody has put anything on w1 yet, and its manager, both not started."""
    with ExitStack() as stack:
        wifi = {"wifi": {**WIFI, "exclusive": exclusive}}
        settings = Settings(classes=CLASSES, uplinks=wifi)
        world = stack.enter_context(World(folder, settings, start=False))
        link = world.site.host
        link.ip("address", "flush", "dev", "w1", "scope", "global")
        for family in Family:  # main's best, whatever metric the manager uses
            gateway_a = str(LINKS["A", family][1])
            link.ip("route", "del", "default", "dev", "w0", "via", gateway_a)
            link.ip("route", "add", "default", "via", gateway_a, "dev", "w0", "metric", "1")
        # NetworkManager hears advertisements itself, and takes what has addresses for another's.
        by_kernel = script is not _NETWORK_MANAGER
        link.sysctl("net/ipv6/conf/w1/accept_ra", "2" if by_kernel else "0")
        stack.enter_context(gateway(world.site, folder, renew_s=renew_s))
        manager = Manager(link, folder, script, world.place(PLAIN).cgroup)
        stack.callback(manager.kill)
        yield world, manager


def _serves(world: World) -> bool:
    return set(states(world).values()) == {"ready"}


def _classes_go_on(world: World, *, exclusive: bool = False) -> None:
    for kind in _KINDS:
        found = ip_address(seen(world, "brief", kind))
        assert found in LINKS["B", kind.family][0] and str(found) != host("B", kind.family)
        ordinary = host("A", kind.family) if exclusive else _by_main(world, kind.family)
        assert seen(world, PLAIN, kind) == ordinary, kind


def _by_main(world: World, family: Family) -> str:
    """From where who is of no class sends without us."""
    (route,) = json.loads(world.site.host.ip("-j", "route", "get", CORRESPONDENT[family]))
    return str(route["prefsrc"])


@pytest.mark.parametrize("name", _SCRIPTS)
def test_n2_a_manager_that_was_there_before_us_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    with _managed(tmp_path, _SCRIPTS[name]) as (world, manager):
        manager.start()
        before = settled(world.site.host)
        world.agent.start()
        eventually(lambda: _serves(world), "what it has given serves", 10)
        with world.captures() as captures:
            captures.await_quiet()
            _classes_go_on(world)
            assert not captures.strays()
        assert theirs(world.site.host) == before
        world.agent.stop()
        world.agent.call("detach", "-c", str(world.agent.config))
        assert theirs(world.site.host) == before


@pytest.mark.parametrize("name", _SCRIPTS)
def test_n3_a_manager_that_comes_after_us_and_starts_again_is_followed(
    tmp_path: Path, name: str
) -> None:
    with _managed(tmp_path, _SCRIPTS[name]) as (world, manager):
        world.agent.start()
        assert states(world)["wifi/ipv4"] == "withdrawn"
        refused = world.place("brief").do(lambda: outcome(lambda: call(Kind.TCP4)))
        assert refused == "EADDRNOTAVAIL"
        manager.start()
        eventually(lambda: _serves(world), f"{name} has given addresses", 40)
        _classes_go_on(world)
        settled(world.site.host)
        manager.kill()
        _classes_go_on(world)
        manager.start()
        settled(world.site.host)
        eventually(lambda: _serves(world), "it serves again", 10)
        _classes_go_on(world)


@pytest.mark.parametrize("name", ["dhcpcd", "dhclient"])
def test_s6_a_manager_gets_its_lease_on_an_exclusive_uplink(tmp_path: Path, name: str) -> None:
    """Its packets are of no class, its addresses typed; the second lease is asked for with them."""
    with _managed(tmp_path, _SCRIPTS[name], exclusive=True) as (world, manager):
        world.agent.start()
        manager.start()
        eventually(lambda: _serves(world), f"{name} has given addresses", 40)
        _classes_go_on(world, exclusive=True)
        manager.kill()
        manager.start()
        settled(world.site.host)
        eventually(lambda: _serves(world), "it serves again", 10)
        _classes_go_on(world, exclusive=True)


@pytest.mark.parametrize("name", _SCRIPTS)
def test_s6_a_manager_renews_its_lease_on_an_exclusive_uplink(tmp_path: Path, name: str) -> None:
    """At T1, by a datagram from the typed address to the server alone, which makes it longer."""
    with _managed(tmp_path, _SCRIPTS[name], exclusive=True, renew_s=_RENEW_S) as (world, manager):
        world.agent.start()
        manager.start()
        eventually(lambda: _serves(world), f"{name} has given addresses", 40)
        given, address = _lease(tmp_path)
        with world.captures() as captures:
            eventually(lambda: _lease(tmp_path)[0] > given, "the server made it longer", 60)
            sent = [p for p in captures.at("B").packets() if p.port == _DHCP_SERVER]
        assert {str(each.source) for each in sent} == {address}
        assert _lease(tmp_path)[1] == address
        _classes_go_on(world, exclusive=True)


def _lease(folder: Path) -> tuple[int, str]:
    """Until when the server's one lease is, and of which address. Each time the file is new."""
    found: list[str] = []

    def written() -> bool:
        lines = (folder / "leases").read_text().splitlines()
        found[:] = [each for each in lines if "198.51.100." in each]
        return len(found) == 1

    eventually(written, "the server has written its lease down")
    until, _, address, *_ = found[0].split()
    return int(until), address
