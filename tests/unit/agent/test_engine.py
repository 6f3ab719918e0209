"""The engine against the fakes: what is waited for, what is retried, what alarms."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from odm_agent.agent import engine as engine_module
from odm_agent.agent.engine import Engine
from odm_agent.core import tables
from odm_agent.core.actions import (
    AddAddress,
    AddRoute,
    AddRule,
    DatapathAction,
    KernelAction,
)
from odm_agent.core.errors import DatapathError, KernelError
from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.core.model import AddressType, ClassPolicy, Family, Placement, TypedPrefix
from odm_agent.core.projection import CgroupRow, Projection
from odm_agent.core.tables import Put
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable
from odm_agent.reconcile import projections

NUMBERS = Numbers(table_base=1000, rule_priority=500, mark_mask=0xFF00, protocol=86)
NET6, NET4 = IPv6Network("2001:db8:1::/64"), IPv4Network("192.0.2.0/24")
HOME6 = TypedPrefix(
    1,
    "home6",
    AddressType.FIXED,
    NET6,
    "eth0",
    IPv6Address("fe80::1"),
    Placement.DELEGATED,
    (NET6,),
)
LINK4 = TypedPrefix(
    2,
    "link4",
    AddressType.NONPERSISTENT,
    NET4,
    "eth0",
    IPv4Address("192.0.2.1"),
    Placement.ON_LINK,
    tuple(IPv4Network(f"192.0.2.{n}/32") for n in (40, 41)),
    range=(IPv4Address("192.0.2.40"), IPv4Address("192.0.2.41")),
)


def engine(*prefixes: TypedPrefix) -> tuple[Engine, FakeKernel, FakeDatapath]:
    kernel, maps = FakeKernel(), FakeDatapath()
    kernel.set_link("eth0")
    table = PrefixTable(b"secret").with_only(prefixes)
    return Engine(kernel, maps, NUMBERS, table), kernel, maps


def test_converges_until_the_prefix_is_offered() -> None:
    made, _, maps = engine(HOME6)
    assert made.converge()
    assert maps.read().choices == {(AddressType.FIXED, Family.IPV6): (1,)}
    assert made.all_usable()
    assert not made.converge(), "nothing is left to do"


def test_a_glance_tells_links_that_are_others_and_changes_nothing() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge()
    before = made.host
    assert made.glance() is None
    kernel.set_link("eth0", carrier=False)
    host = made.glance()
    assert host is not None and not host.links["eth0"].up
    assert host.addresses == before.addresses and made.host is before


def test_alarm_of_what_fails_again_is_there_while_it_is_tried() -> None:
    made, _, maps = engine(HOME6)
    seen: list[list[str]] = []
    made.has_news = lambda: not seen.append(list(made.failures))  # type: ignore[func-returns-value]

    def full(action: object) -> None:
        if isinstance(action, Put) and action.table is tables.SOURCES:
            raise DatapathError("full")

    maps.fault = full
    made.converge()
    made.converge()
    assert seen[0] == [] and seen[-1] == made.failures != []
    maps.fault = lambda action: None
    made.converge()
    assert made.failures == [] and made.is_at_rest


def test_on_link_ipv4_address_waits_for_its_probe() -> None:
    made, kernel, maps = engine(LINK4)
    made.converge()
    (waiting,) = made.to_probe
    assert waiting.address == IPv4Address("192.0.2.40")
    assert not any(local.address == waiting.address for local in kernel.read().addresses)
    assert not made.all_usable()

    made.probe_ended(waiting, in_use=False)
    made.converge()
    assert made.all_usable()
    assert maps.read().prefixes[2].pool == (waiting.address,)


def test_address_in_use_elsewhere_is_replaced_by_the_next() -> None:
    made, _, maps = engine(LINK4)
    made.converge()
    (waiting,) = made.to_probe
    made.probe_ended(waiting, in_use=True)
    made.converge()
    (following,) = made.to_probe
    assert following.address == IPv4Address("192.0.2.41")
    made.probe_ended(following, in_use=True)
    made.converge()
    assert made.to_probe == set()
    assert maps.read().choices == {}
    assert any("link4" in alarm and "192.0.2.40" in alarm for alarm in made.alarms())


def test_vanished_ipv4_address_is_probed_again() -> None:
    made, _, _ = engine(LINK4)
    made.converge()
    (waiting,) = made.to_probe
    made.probe_ended(waiting, in_use=False)
    made.converge()
    made.table = made.table.with_only(())
    made.converge()
    made.table = made.table.with_only((LINK4,))
    made.converge()
    assert made.to_probe == {waiting}


def test_failure_is_told_and_tried_again() -> None:
    made, kernel, maps = engine(HOME6)

    def refuse(action: KernelAction) -> None:
        if isinstance(action, AddAddress):
            raise KernelError("adding the address: no")

    kernel.fault = refuse
    made.converge()
    assert "not done: adding the address: no" in made.alarms()
    assert maps.read().choices == {}
    assert maps.read().spans, "typed all the same: denied to others"
    kernel.fault = lambda action: None
    made.converge()
    assert maps.read().choices
    assert made.failures == []


def test_full_map_stops_the_plan_and_offers_nothing() -> None:
    made, _, maps = engine(HOME6)

    def full(action: object) -> None:
        if isinstance(action, Put) and action.table == tables.PREFIXES:
            raise DatapathError("full")

    maps.fault = full
    made.converge()
    assert maps.read().choices == {}
    assert made.alarms()


@pytest.mark.parametrize(("address", "alarmed"), [("2001:db8:9::1", False), (None, True)])
def test_family_without_untyped_address_alarms(address: str | None, alarmed: bool) -> None:
    made, kernel, _ = engine(HOME6)
    if address is not None:
        kernel.add_foreign(LocalAddress(IPv6Address(address), 64, "eth0", ours=False))
    made.converge()
    assert any("no untyped address" in alarm for alarm in made.alarms()) is alarmed


def looks(made: Engine, kernel: FakeKernel) -> list[str]:
    """What the engine does to see the kernel, from now on."""
    seen: list[str] = []
    read = kernel.read

    def reading() -> HostState:
        seen.append("read")
        return read()

    read_addresses = kernel.read_addresses

    def reading_addresses(among: Mapping[str, Link]) -> tuple[LocalAddress, ...]:
        seen.append("addresses")
        return read_addresses(among)

    kernel.read = reading  # type: ignore[method-assign]
    kernel.read_addresses = reading_addresses  # type: ignore[method-assign]
    made.has_news = lambda: not seen.append("drain")  # type: ignore[func-returns-value]
    return seen


def test_what_is_at_rest_is_read_once_after_its_events_were_taken() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge()
    seen = looks(made, kernel)
    assert not made.converge()
    assert seen == ["drain", "read"]


def test_what_was_at_rest_is_not_read_again_without_news() -> None:
    made, kernel, maps = engine(HOME6)
    made.converge()
    seen = looks(made, kernel)
    made.has_news = lambda: False
    maps.apply(tables.PREFIXES.drop(1))
    assert made.converge(anew=False) and seen == [] and maps.read().prefixes
    kernel.rules.clear()
    assert not made.converge(anew=False) and seen == [], "nobody has told of it"
    made.has_news = lambda: True
    assert made.converge(anew=False) and seen[0] == "read" and kernel.rules
    made.has_news = lambda: False
    seen.clear()
    kernel.rules.clear()
    assert made.converge() and seen[0] == "read" and kernel.rules


def test_rows_of_maps_alone_ask_for_no_other_look() -> None:
    made, kernel, maps = engine(HOME6)
    seen = looks(made, kernel)
    made.converge()
    whole = ["drain", "read"]
    assert seen == [*whole, "addresses", *whole], "before, when they are ready, and in the end"
    seen.clear()
    maps.apply(tables.PREFIXES.drop(1))
    assert made.converge()
    assert seen == ["drain", "read"] and maps.read().prefixes


def test_what_goes_while_addresses_alone_are_looked_at_is_found_in_the_same_pass() -> None:
    made, kernel, _ = engine(HOME6)
    read_addresses = kernel.read_addresses

    def meanwhile(among: Mapping[str, Link]) -> tuple[LocalAddress, ...]:
        kernel.rules.clear()
        return read_addresses(among)

    kernel.read_addresses = meanwhile  # type: ignore[method-assign]
    made.converge()
    assert made._rest is not None and kernel.rules == made._rest.rules != set()


def test_a_pass_ends_with_a_look_at_all_of_it_though_an_address_is_not_ready_yet() -> None:
    """Duplicate address detection takes longer than a pass, which then has nothing more to do."""
    made, kernel, _ = engine(replace(LINK4, network=NET6, gateway=HOME6.gateway, spans=(NET6,)))
    seen = looks(made, kernel)
    made.converge()
    assert seen[-3:] == ["addresses", "drain", "read"] and not made.all_usable()


HOOKS = (tables.PREFIXES, tables.CHOICES)


def plans(made: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One word for each plan from now on, and the looks between."""
    seen = looks(made, made.kernel)  # type: ignore[arg-type]
    desired = projections.desired

    def planning(*given: Any) -> Projection:
        seen.append("plan")
        return desired(*given)

    monkeypatch.setattr(engine_module, "desired", planning)
    return seen


def test_a_new_prefix_is_offered_by_one_plan_and_after_a_look_at_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _, maps = engine(HOME6)
    seen = plans(made, monkeypatch)
    maps.fault = lambda action: seen.append("offer") if _offers(action) else None
    made.converge(lambda: seen.append("serving"))
    whole = ["drain", "read", "plan"]
    assert seen == [*whole, "addresses", "offer", "offer", "serving", *whole]
    assert made.is_at_rest


def _offers(action: DatapathAction) -> bool:
    return isinstance(action, Put) and action.table in HOOKS


def test_nothing_is_offered_of_what_was_foreseen_and_did_not_come_true() -> None:
    made, kernel, maps = engine(HOME6)
    read, ready = kernel.read, False

    def as_shown() -> HostState:
        host = read()
        shown = tuple(replace(each, ready=ready) for each in host.addresses)
        return replace(host, addresses=shown)

    kernel.read = as_shown  # type: ignore[method-assign]
    kernel.read_addresses = lambda among: as_shown().addresses  # type: ignore[method-assign]
    offered: list[DatapathAction] = []
    maps.fault = lambda action: offered.append(action) if _offers(action) else None
    made.converge()
    assert kernel.addresses and not offered
    ready = True
    made.converge()
    assert maps.read().choices and made.is_at_rest


@pytest.mark.parametrize("kind", [AddAddress, AddRoute, AddRule])
def test_a_new_prefix_that_can_not_be_configured_stops_no_other(kind: type) -> None:
    other = replace(
        HOME6,
        id=3,
        name="other",
        network=IPv6Network("2001:db8:3::/64"),
        spans=(IPv6Network("2001:db8:3::/64"),),
        type=AddressType.SESSION_LASTING,
    )
    made, kernel, maps = engine(HOME6, other)

    def refuse(action: KernelAction) -> None:
        about = str(action)
        if isinstance(action, kind) and ("2001:db8:1:" in about or "table=1001" in about):
            raise KernelError(about)

    kernel.fault = refuse
    for _ in range(3):
        made.converge()
    assert maps.read().choices == {(AddressType.SESSION_LASTING, Family.IPV6): (3,)}
    assert made.failures
    assert len(made.failures) == len(set(made.failures)), "each is told once"
    kernel.fault = lambda action: None
    made.converge()
    assert made.is_at_rest and not made.failures
    assert (AddressType.FIXED, Family.IPV6) in maps.read().choices


def test_cgroups_alone_are_classified_without_a_look_at_the_kernel() -> None:
    made, kernel, maps = engine(HOME6)
    made.converge()
    seen = looks(made, kernel)
    made.classes = {1: ClassPolicy(1, "one")}
    made.cgroups = {100: CgroupRow(1)}
    assert made.reclassify()
    assert maps.read().cgroups == made.cgroups
    assert not made.reclassify() and made.is_at_rest
    maps.apply(tables.CGROUPS.drop(100))
    assert made.reclassify() and made.take_vanished() == ["row of odm_cgroups for 100"]
    assert seen == []


def test_cgroups_wait_for_nothing_but_take_along_what_was_not_at_rest() -> None:
    made, kernel, maps = engine(HOME6)
    made.cgroups = {100: CgroupRow(1)}
    made.classes = {1: ClassPolicy(1, "one")}
    assert not made.is_at_rest
    assert made.reclassify() and made.is_at_rest
    assert kernel.addresses and maps.read().cgroups

    def full(action: object) -> None:
        raise DatapathError("full")

    maps.fault = full
    made.cgroups = {100: CgroupRow(1), 101: CgroupRow(1)}
    made.reclassify()
    assert made.failures and not made.is_at_rest
    maps.fault = lambda action: None
    made.reclassify()
    assert not made.failures and maps.read().cgroups == made.cgroups


def test_after_a_look_that_failed_nothing_counts_as_known() -> None:
    """What the look was for had been taken from the queue of events."""
    made, kernel, _ = engine(HOME6)
    made.converge()
    read = kernel.read

    def broken() -> HostState:
        raise KernelError("reading: no")

    kernel.read = broken  # type: ignore[method-assign]
    with pytest.raises(KernelError):
        made.converge()
    assert not made.is_at_rest
    kernel.read = read  # type: ignore[method-assign]
    made.reclassify()
    assert made.is_at_rest
