"""Large pools: one route instead of thousands of addresses, and nobody untyped pays for them."""

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, PREFIXES, SESSION, type_of
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World, with_pool

#: IPV6_FREEBIND (linux/in6.h).
_FREEBIND = 78
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


def _phases(world: World) -> dict[str, tuple[str, int]]:
    """The phase of each address of the pool, and the bytes that were sent from it."""
    return {
        each["address"]: (each["phase"], each["used_bytes"])
        for each in world.agent.read("lifetimes")
        if each["prefix"] == "session6"
    }


def _spends(address: str, budget: int) -> None:
    """An application that uses one address up."""
    with Kind.SENDTO6.open() as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, _FREEBIND, 1)
        sock.bind((address, 0))
        for _ in range(budget // 1000 + 1):
            sock.sendto(b"x" * 1000, Kind.SENDTO6.destination)


@pytest.mark.parametrize("alive", [True, False], ids=["agent", "no agent"])
def test_L2_each_address_of_a_pool_that_is_local_by_a_route_has_its_budget(
    tmp_path: Path, alive: bool
) -> None:
    """The one that is used up is given to no socket any more, and all others are."""
    budget, size = 100_000, 40
    settings = with_pool(STANDARD, "session6", size)
    keys = {**settings.extra.get("session6", {}), "budget": f"{budget}B"}
    extra = {**settings.extra, "session6": keys}
    with World(tmp_path, replace(settings, extra=extra)) as world:
        place = world.place("every")
        pool = {each for each, (phase, _) in _phases(world).items() if phase == "current"}
        assert len(pool) == size
        by_route = {
            each["address"] for each in world.agent.read("addresses") if each["state"] == "anyip"
        }
        spent = sorted(pool & by_route)[0]
        if not alive:
            world.agent.sigkill()
        place.do(lambda: _spends(spent, budget))
        if alive:
            wait_until(lambda: _phases(world).get(spent, ("",))[0] != "current", "it is replaced")
            now = {each for each, (phase, _) in _phases(world).items() if phase == "current"}
            assert len(now) == size and len(now & pool) == size - 1
            pool = now
        seen = {
            source
            for _ in range(4)
            for source in place.do(lambda: [call(Kind.SENDTO6, SESSION).seen for _ in range(50)])
        }
        assert spent not in seen
        assert len(seen) > size * 3 // 4
        if not alive:
            world.agent.start()
        told = _phases(world)
        assert all(told[each][1] > 0 for each in seen if each in told)
        assert sum(used for _, used in told.values() if used) >= budget or spent not in told


@pytest.mark.parametrize(
    ("kind", "asks"),
    [(Kind.TCP6, True), (Kind.TCP6, False), (Kind.UDP6, False)],
    ids=["asked", "default", "mark"],
)
def test_L3_all_addresses_of_such_a_pool_end_at_once_and_nobody_waits(
    tmp_path: Path, kind: Kind, asks: bool
) -> None:
    """Whether a socket can have those that are local by a route, or configured ones only."""
    preferred_s = 6
    settings = with_pool(STANDARD, "session6", 40)
    keys = {**settings.extra.get("session6", {}), "preferred": f"{preferred_s}s"}
    extra = {**settings.extra, "session6": keys}
    with World(tmp_path, replace(settings, extra=extra)) as world:
        place = world.place("every" if asks else "session")
        type_ = SESSION if asks else AddressType.UNSPECIFIED
        first_s: dict[str, float] = {}
        end_s = time.monotonic() + 2.2 * preferred_s
        while time.monotonic() < end_s:
            source = place.do(lambda: call(kind, type_).seen)
            now_s = time.monotonic()
            assert type_of(source) == SESSION
            assert now_s - first_s.setdefault(source, now_s) <= preferred_s + 0.5
        assert len(first_s) >= 3
