"""The agent on a link where nobody is to be trusted, or where the link itself goes."""

import os
import random
import socket
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from odm_agent.sources.dhcpv6.codec import packed, parsed
from odm_agent.sources.dhcpv6.messages import Codes, Kind
from odm_agent.sources.dhcpv6.settings import OPTION_CODE
from tests.lab.agent import LabClass
from tests.lab.cgroup import Cgroup
from tests.lab.client import Kind as Socket
from tests.lab.client import call, talker
from tests.lab.dhcp_server import ScriptedServer
from tests.lab.host import FIXED, SESSION
from tests.lab.netns import address, veth
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.mobile import MobileHost, Told, settings
from tests.virtual.dhcpv6_server import Server

pytestmark = needs_root

CODES = Codes(OPTION_CODE)
SESSIONS = Told({"at_start": [SESSION.word]})
#: It may use fixed addresses alone, of which there are none.
STRICT = LabClass(allow=(FIXED,), default=FIXED, strict=True)
IDLE = Told(None)


class Obliging:
    """A scripted server that answers as one should, by `server`, and sends what else it likes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.heard: list[Kind] = []

    def __call__(self, data: bytes) -> Iterable[bytes]:
        asked = parsed(data, CODES)
        self.heard.append(asked.kind)
        answer = self.server.answer(asked)
        return [] if answer is None else [packed(answer, CODES)]


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MobileHost]:
    # The right to the port is kept only by an agent that is told of a delegation when it starts.
    with MobileHost(tmp_path_factory.mktemp("mobile"), Told()) as made:
        made.kea.stop()
        yield made


@pytest.fixture
def scripted(mobile: MobileHost) -> Iterator[tuple[ScriptedServer, Obliging]]:
    mobile.reload(IDLE)
    wait_until(lambda: not mobile.prefixes(), "nothing is held", 60)
    obliging = Obliging(Server())
    with ScriptedServer(mobile.gateway, mobile.access, obliging) as server:
        yield server, obliging


def test_nonsense_and_a_flood_change_nothing_and_the_agent_answers_all_the_while(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    server, obliging = scripted
    mobile.reload(SESSIONS)
    network = mobile.await_prefix(SESSION)
    chance = random.Random(1)
    reply = packed(obliging.server.answer(parsed(server.heard[0], CODES)), CODES)  # type: ignore[arg-type]
    for cut in range(0, len(reply), 3):
        server.say(reply[:cut])
    for _ in range(200):
        server.say(chance.randbytes(chance.randrange(1400)))
        at = chance.randrange(len(reply))
        server.say(reply[:at] + chance.randbytes(1) + reply[at + 1 :])

    def too_large() -> bool:
        server.say(bytes(9000))  # where there is room for it
        return _dropped(mobile, "too-large") > 0

    wait_until(too_large, "what is too large is counted", 20)
    longest = 0.0
    until = time.monotonic() + 5
    while time.monotonic() < until:
        server.say(reply, 200)
        server.say(os.urandom(1200), 200)
        began = time.monotonic()
        assert mobile.agent.addresses("isp/session-lasting")
        longest = max(longest, time.monotonic() - began)
    assert longest < 5, "a caller is kept waiting"
    assert [*mobile.prefixes()] == [network]
    assert _dropped(mobile, "too-many") > 0
    assert not mobile.agent.read("status")["alarms"]


def _dropped(mobile: MobileHost, reason: str) -> float:
    """How much was thrown away for that."""
    name = f'odm_network_dropped_total{{reason="{reason}"}}'
    found = [line for line in mobile.agent.metrics().splitlines() if line.startswith(name)]
    return float(found[0].split()[-1]) if found else 0.0


def test_a_database_that_is_away_takes_no_prefix_from_the_host(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    _, obliging = scripted
    obliging.server.preferred_s, obliging.server.valid_s = 60, 120
    obliging.server.t1_s, obliging.server.t2_s = 2, 60
    mobile.reload(SESSIONS)
    network = mobile.await_prefix(SESSION)
    mobile.route_back(network)
    obliging.server.outage = True
    with mobile.places["session"].background(talker(Socket.TCP6)) as source:
        wait_until(lambda: Kind.REBIND in obliging.heard, "any server is asked", 60)
        time.sleep(1.0)
        assert [*mobile.prefixes()] == [network]
        seen = mobile.places["session"].do(lambda: call(Socket.TCP6))
        assert ip_address(seen.seen) in network
        assert mobile.agent.addresses("isp/session-lasting") == [source]
    obliging.server.outage = False


def test_an_interface_that_is_replaced_is_asked_on_anew(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    server, obliging = scripted
    mobile.reload(SESSIONS)
    network = mobile.await_prefix(SESSION)
    mobile.netns.ip("link", "delete", "w0")
    wait_until(lambda: not _isp(mobile)["linked"], "the link is missed", 20)
    assert mobile.delegated(SESSION)[0]["state"] == "waiting"
    veth(mobile.netns, "w0", mobile.gateway, mobile.access)
    address(mobile.gateway, mobile.access, f"{mobile.router}/64")
    address(mobile.netns, "w0", f"{mobile.router + 15}/64")
    with ScriptedServer(mobile.gateway, mobile.access, obliging):
        before = len(obliging.heard)
        wait_until(lambda: Kind.REBIND in obliging.heard[before:], "it is asked there", 30)
        wait_until(lambda: mobile.delegated(SESSION)[0]["state"] == "bound", "it holds", 30)
    mobile.netns.ip("-6", "route", "replace", "default", "via", str(mobile.router), "dev", "w0")
    assert mobile.await_prefix(SESSION) == network
    assert server.heard


def test_a_port_that_another_client_has_is_an_alarm_and_heals(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    mobile.agent.stop()
    mobile.agent.configure(settings(SESSIONS))
    with mobile.places["nothing"].background(_other_client):
        mobile.agent.start()
        name = Path("/proc/self/comm").read_text().strip()
        assert f"UDP 546) on w0: {name} (pid" in _isp(mobile)["trouble"]
        (alarm,) = mobile.agent.read("status")["alarms"]
        assert "only one client can ask there; stop it on this interface" in alarm
        checked = mobile.agent.call("check", str(mobile.agent.config))
        assert "asks by DHCPv6 on w0 already (UDP port 546)" in checked.stdout
        assert checked.returncode == 0
    assert mobile.await_prefix(SESSION)
    assert not mobile.agent.read("status")["alarms"]
    assert "asks by DHCPv6" not in mobile.agent.call("check", str(mobile.agent.config)).stdout


def _other_client(ready: object) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"w0")
    sock.bind(("::", 546))
    ready(True)  # type: ignore[operator]
    time.sleep(600)


def _isp(mobile: MobileHost) -> Any:
    (found,) = mobile.agent.read("status")["delegations"]
    return found


def test_the_agents_own_packets_pass_whatever_its_class_may(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    """An agent that lies in a cgroup of a class that is allowed nothing else asks all the same."""
    mobile.agent.stop()
    own = Cgroup(path=mobile.cgroup.path / "agent")
    mobile.agent.within = ("sh", "-c", f'echo $$ > {own.path}/cgroup.procs; exec "$@"', "--")
    try:
        classes = {**SESSIONS.classes, "agent": STRICT}
        mobile.agent.configure(settings(Told(SESSIONS.keys, classes)))
        mobile.agent.start()
        status = mobile.agent.read("status")
        cgroup = Path(f"/proc/{status['pid']}/cgroup").read_text().strip()
        assert cgroup.endswith("/agent")
        network = mobile.await_prefix(SESSION)
        assert network.subnet_of(IPv6Network("2001:db8::/32"))
    finally:
        mobile.agent.stop()
        mobile.agent.within = ()
        mobile.agent.configure(settings(Told()))
        mobile.agent.start()


def test_the_first_delegation_takes_a_restart(
    mobile: MobileHost, scripted: tuple[ScriptedServer, Obliging]
) -> None:
    """An agent that started without one has given up the right to the port; it says so."""
    mobile.agent.stop()
    mobile.agent.configure(settings(IDLE))
    mobile.agent.start()
    mobile.reload(SESSIONS)
    assert "restart it" in _isp(mobile)["trouble"]
    mobile.agent.stop()
    mobile.agent.start()
    assert mobile.await_prefix(SESSION)
