"""Which endpoints are ours."""

from ipaddress import ip_address

from odm_agent.agent.mptcp import OURS, ours
from odm_agent.core.host import HostState, LocalAddress
from odm_agent.kernel.mptcp import Endpoint

OUR_ADDRESS, THEIRS = ip_address("2001:db8:1::1"), ip_address("2001:db8:2::1")
HOST = HostState(
    addresses=tuple(
        LocalAddress(
            address=address,
            prefix_length=128,
            interface="lo",
            ours=address == OUR_ADDRESS,
            ready=True,
            failed=False,
            deprecated=False,
        )
        for address in (OUR_ADDRESS, THEIRS)
    )
)


def test_an_endpoint_is_ours_by_its_id_and_its_address() -> None:
    mine = Endpoint(OURS[0], OUR_ADDRESS)
    others = [
        Endpoint(1, OUR_ADDRESS),
        Endpoint(OURS[-1], THEIRS),
        Endpoint(OURS[-1], ip_address("192.0.2.1")),
    ]
    assert ours([mine, *others], HOST) == [mine]
