"""What counts as new to a socket that asks for a new address: what others have just been made."""

import ctypes as ct
import time

import pytest

from odm_agent import client
from odm_agent.datapath import abi, libbpf
from tests.lab.client import Kind, disconnect, exchange, outcome
from tests.lab.host import GRACEFUL
from tests.lab.world import World


@pytest.mark.parametrize(
    ("for_s", "told"),
    [(-60, ["EADDRNOTAVAIL", "EADDRNOTAVAIL"]), (600, ["ok", "EADDRNOTAVAIL"])],
    ids=["long ago", "just now"],
)
def test_an_address_that_was_just_made_is_new_to_who_has_not_had_it(
    stopped: World, for_s: int, told: list[str]
) -> None:
    """Without an agent, who asks for a new one is told of no other."""

    def application() -> list[str]:
        kind, found = Kind.TCP6, []
        with kind.open() as sock:
            for _ in range(2):
                client.set_type(sock, GRACEFUL, fresh=True)
                found.append(outcome(lambda: exchange(sock, kind)))
                disconnect(sock)
        return found

    pinned = libbpf.get_pinned(stopped.agent.pins / "odm_offers")
    offers = libbpf.Map(pinned, ct.c_uint32, abi.Prefix, "odm_offers")
    ((id_, row),) = (
        (id_, row)
        for id_, row in offers.items()
        if (row.type, row.family) == (GRACEFUL, abi.FamilyIndex.IPV6)
    )
    try:
        row.new_until_s = int(time.clock_gettime(time.CLOCK_BOOTTIME)) + for_s
        offers.put(id_, row)
        assert stopped.place("every").do(application) == told
    finally:
        row.new_until_s = 0
        offers.put(id_, row)
        offers.close()
