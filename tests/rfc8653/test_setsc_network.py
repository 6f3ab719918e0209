"""S3 with a real network: setsc() makes a stock Kea delegate a prefix, and says why it does not."""

import ipaddress
import time
from collections.abc import Iterator

import pytest

from odm_agent import client
from tests.lab.client import Kind, exchange
from tests.lab.host import NONPERSISTENT, SESSION
from tests.lab.root import needs_root
from tests.netlab.mobile import MobileHost, Told
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message

pytestmark = needs_root

_POOL = SITES["a"].pools[WireType.SESSION_LASTING]
_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MobileHost]:
    """A host whose network gives session-lasting prefixes, and is asked for no others."""
    told = Told({"types": [SESSION.word], "release": "never"})
    with (
        pytest.MonkeyPatch.context() as environment,
        MobileHost(tmp_path_factory.mktemp("mobile"), told) as made,
    ):
        environment.setenv("ODM_WAIT_SOCKET", str(made.agent.wait_socket))
        yield made


def test_S3_S4_S7_N1_D2_it_waits_for_what_a_stock_server_delegates(mobile: MobileHost) -> None:
    """Nothing was said before; many who wait make one request; and what it told is used."""
    time.sleep(2.0)
    assert mobile.since_then() == []

    def application() -> list[str]:
        sockets = [Kind.TCP6.open() for _ in range(3)]
        found = [str(client.setsc(each, SESSION, timeout_s=_PATIENCE_S)) for each in sockets]
        for each in sockets:
            each.close()
        return found

    [told] = set(mobile.places["every"].do(application, timeout_s=2 * _PATIENCE_S))
    network = mobile.await_prefix(SESSION)
    assert ipaddress.ip_address(told) in network and network.subnet_of(_POOL)
    assert network in mobile.leased()
    assert len(mobile.since_then(Message.SOLICIT)) == 1
    mobile.route_back(network)

    def uses() -> tuple[str, str]:
        with Kind.TCP6.open() as sock:
            found = client.setsc(sock, SESSION, timeout_s=_PATIENCE_S)
            sock.bind((str(found), 0))
            return str(found), exchange(sock, Kind.TCP6).seen

    assert mobile.places["every"].do(uses, timeout_s=2 * _PATIENCE_S) == (told, told)


def test_S3_D3_what_the_network_is_not_asked_for_is_not_supported(mobile: MobileHost) -> None:
    """The cause is told, and the network hears nothing."""
    before = len(mobile.since_then(Message.SOLICIT))

    def application() -> tuple[bool, str]:
        with Kind.TCP6.open() as sock:
            try:
                client.setsc(sock, NONPERSISTENT, timeout_s=_PATIENCE_S)
            except client.RequestFailed as error:
                return error.unsupported, error.strerror or ""
        return False, "nothing"

    unsupported, cause = mobile.places["every"].do(application, timeout_s=2 * _PATIENCE_S)
    assert unsupported and NONPERSISTENT.word in cause
    assert len(mobile.since_then(Message.SOLICIT)) == before
