"""Large pools: one route instead of thousands of addresses, and nobody untyped pays for them."""

import json
from pathlib import Path

import pytest

from odm_agent.core.model import Family
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, PREFIXES, SESSION
from tests.lab.world import STANDARD, World, with_pool

_FIXED6 = next(p for p in PREFIXES if p.name == "fixed6")


def _on_lo(world: World) -> int:
    listed = json.loads(world.site.host.ip("-json", "-6", "address", "show", "dev", "lo"))
    return sum(each["scope"] == "global" for each in listed[0]["addr_info"])


def test_large_pool_is_one_route_and_sixteen_addresses(tmp_path: Path) -> None:
    with World(tmp_path, with_pool(STANDARD, "fixed6", 1000)) as world:
        others = sum(p.family is Family.IPV6 and p.placement.value == "delegated" for p in PREFIXES)
        assert _on_lo(world) == 16 + others - 1
        listed = {a["address"]: a["state"] for a in world.agent.read("addresses")}
        pool = {a for a in listed if a in _FIXED6}
        assert len(pool) == 1000

        asked = {world.place("every").do(lambda: call(Kind.TCP6, FIXED)).seen for _ in range(12)}
        assert asked <= pool
        assert len(asked) > 6, "spread over the whole pool"
        assert any(listed[each] == "anyip" for each in asked)

        default = {world.place("fixed").do(lambda: call(Kind.TCP6)).seen for _ in range(8)}
        assert default <= {a for a in pool if listed[a] == "ready"}, "bindable without FREEBIND"
        sent = {world.place("every").do(lambda: call(Kind.SENDTO6, FIXED)).seen for _ in range(8)}
        assert sent <= pool


@pytest.mark.parametrize("pool", [1, 16])
def test_untyped_connects_look_only_at_their_uplink(pool: int, tmp_path: Path) -> None:
    setting = "/proc/sys/net/ipv6/conf/w0/use_oif_addrs_only"
    with World(tmp_path, with_pool(STANDARD, "fixed6", pool)) as world:

        def value() -> str:
            return world.site.host.run(["cat", setting]).strip()

        assert value() == "1"
        untyped = world.place("plain").do(lambda: call(Kind.TCP6)).seen
        assert untyped == world.address(type(FIXED)(0), Family.IPV6)
        world.agent.close()
        assert value() == "0", "detach puts it back"


def test_pool_of_a_few_is_spread_over_and_shared_by_nobody_else(tmp_path: Path) -> None:
    with World(tmp_path, with_pool(STANDARD, "session6", 4)) as world:
        pool = set(world.agent.addresses("session6"))
        assert len(pool) == 4
        seen = {world.place("session").do(lambda: call(Kind.TCP6)).seen for _ in range(16)}
        assert seen <= pool
        assert len(seen) > 1
        assert world.place("every").do(lambda: call(Kind.TCP6, SESSION)).seen in pool
