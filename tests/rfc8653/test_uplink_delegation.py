"""N1, N2: one interface is an uplink and asked for prefixes, too, as an ISP's line mostly is.

The address that the network gave to the host serves one type, the prefix that it delegates others.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv6Network, ip_address
from typing import Any

import pytest

from tests.lab.agent import Settings
from tests.lab.client import Kind, call, outcome
from tests.lab.host import FIXED, SESSION
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.mobile import CLASSES, MobileHost, Told
from tests.netlab.probe_client import Message

pytestmark = needs_root

_DELEGATION = {"interface": "w0", "types": [SESSION.word], "at_start": [SESSION.word]}
_KINDS = (Kind.TCP6, Kind.UDP6, Kind.SENDTO6)


@pytest.fixture
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MobileHost]:
    with MobileHost(tmp_path_factory.mktemp("line"), Told(None)) as made:
        yield made


def _told(line: MobileHost, **uplink: Any) -> IPv6Network:
    """The agent is told of both; what is delegated."""
    uplinks: Mapping[str, Any] = {"line": {"interface": "w0", "type": FIXED.word, **uplink}}
    line.agent.configure(
        Settings(classes=CLASSES, uplinks=uplinks, delegations={"isp": _DELEGATION})
    )
    if not line.agent.read("status")["delegations"]:  # it has given up the right to the port
        line.agent.stop()
        line.agent.start()
    assert line.agent.reload().returncode == 0
    network = line.await_prefix(SESSION)
    line.route_back(network)
    states = {each["name"]: each["state"] for each in line.agent.read("prefixes")}
    assert states["line/ipv6"] == "ready"
    return network


def _seen(line: MobileHost, place: str, kind: Kind) -> str:
    return line.places[place].do(lambda: call(kind).seen)


def test_N1_N2_an_uplink_may_be_asked_for_prefixes_of_other_types(line: MobileHost) -> None:
    network, own = _told(line), str(line.router + 15)
    for kind in _KINDS:
        assert _seen(line, "fixed", kind) == own
        assert ip_address(_seen(line, "session", kind)) in network
        assert _seen(line, "nothing", kind) == own
    assert line.agent.read("status")["alarms"] == []


def test_N1_N2_an_exclusive_uplink_too_and_the_prefix_lives_and_goes_back(line: MobileHost) -> None:
    network, own = _told(line, exclusive=True), str(line.router + 15)
    for kind in _KINDS:
        assert _seen(line, "fixed", kind) == own
        assert ip_address(_seen(line, "session", kind)) in network
        refused = line.places["nothing"].do(lambda kind=kind: outcome(lambda: call(kind)))  # type: ignore[misc]
        assert refused in ("EPERM", "timeout", "EACCES", "EADDRNOTAVAIL"), kind
    line.reload(Told(None))
    wait_until(lambda: not line.leased(), "the prefix goes back", 30)
    assert line.since_then(Message.RELEASE)
    assert _seen(line, "nothing", Kind.TCP6) == own
