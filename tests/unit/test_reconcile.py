"""The order of things, told as lists of actions. That it holds always: tests/property."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest

from odm_agent.core.actions import (
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveAddress,
    RemoveRule,
)
from odm_agent.core.host import LocalAddress, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import AddressType, ClassPolicy, Family, Placement, TypedPrefix
from odm_agent.core.projection import CgroupRow, PrefixRow, SourceRow
from odm_agent.core.tables import (
    CGROUPS,
    CHOICES,
    CLASSES,
    PREFIXES,
    SOURCES,
    SPANS,
    Drop,
    Put,
    Table,
)
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable
from odm_agent.reconcile.failure import still_safe, together
from odm_agent.reconcile.planning import plan
from odm_agent.reconcile.projections import class_row, desired, observe

NUMBERS = Numbers(table_base=1000, rule_priority=500, mark_mask=0xFF00, protocol=186)
NET = IPv6Network("2001:db8:1::/64")
HOME = TypedPrefix(
    1, "home", AddressType.FIXED, NET, "eth0", IPv6Address("fe80::1"), Placement.DELEGATED, (NET,)
)
OTHER = IPv6Network("2001:db8:2::/64")
REFUSAL = Rule(Family.IPV6, 503, 0, source=NET, action=RuleAction.PROHIBIT)
FIXED6 = (AddressType.FIXED, Family.IPV6)


class Host:
    """A namespace, maps, and the agent's loop one step at a time."""

    def __init__(self, *prefixes: TypedPrefix) -> None:
        self.kernel, self.maps = FakeKernel(), FakeDatapath()
        self.kernel.set_link("eth0")
        self.table = PrefixTable(b"secret").with_only(prefixes)
        self.classes: dict[int, ClassPolicy] = {}
        self.cgroups: dict[int, CgroupRow] = {}

    def plan(self) -> list[Action]:
        host = self.kernel.read()
        want = desired(self.table, self.classes, self.cgroups, host, NUMBERS)
        return plan(want, observe(host, self.maps.read()), host)

    def step(self) -> list[Action]:
        actions = self.plan()
        for action in actions:
            self.apply(action)
        return actions

    def apply(self, action: Action) -> None:
        if isinstance(action, KernelAction):
            self.kernel.apply(action)
        else:
            self.maps.apply(action)

    def settle(self) -> "Host":
        for _ in range(5):
            if not self.step():
                return self
        pytest.fail("no rest")

    def address(self, id_: int = 1) -> IPv6Address | IPv4Address:
        return self.table.addresses_of(id_)[0]


def kinds(actions: list[Action]) -> list[str]:
    return [
        f"{type(action).__name__} {action.table}"
        if isinstance(action, Put | Drop)
        else type(action).__name__
        for action in actions
    ]


def is_put(action: Action, table: Table[Any, Any]) -> bool:
    return isinstance(action, Put) and action.table == table


def test_adding_records_first_and_offers_last() -> None:
    host = Host(HOME)
    first, second = host.step(), host.step()
    assert kinds(first) == [
        *("Put spans", "Put sources", "Put uplinks", "AddRule", "AddAddress", "AddRoute"),
        *("AddRule", "AddRule"),
    ]
    assert first[3] == AddRule(REFUSAL)
    assert kinds(second) == ["AddRoute", "Put prefixes", "Put choices"]
    assert host.plan() == []
    assert host.maps.read().choices == {FIXED6: (1,)}
    assert host.maps.read().prefixes[1] == PrefixRow(
        AddressType.FIXED, Family.IPV6, 2, 0x100, (host.address(),), 1, on_net=True
    )


def test_removing_withdraws_first_and_forgets_when_the_address_is_gone() -> None:
    host = Host(HOME).settle()
    address = host.address()
    host.table = host.table.without(1)
    assert kinds(host.step()) == [
        *("Drop choices", "Drop prefixes", "RemoveRule", "RemoveRule"),
        *("RemoveRoute", "RemoveRoute", "RemoveAddress", "Drop uplinks"),
    ]
    assert host.step() == [SOURCES.drop(address), SPANS.drop(NET), RemoveRule(REFUSAL)]
    assert host.plan() == []


def test_a_prefix_is_handed_on_and_taken_back_without_a_gap_for_our_own_packets() -> None:
    host = Host(HOME).settle()
    for forwarded in (True, False):
        host.table = host.table.with_prefix(replace(HOME, forwarded=forwarded))
        for action in host.plan():
            host.apply(action)
            tables = {r.priority: r.table for r in host.kernel.rules if r.source == NET and r.table}
            assert tables == {502: 1001}
        host.settle()
        assert (REFUSAL in host.kernel.rules) is not forwarded


def _defaults(host: Host) -> list[Route]:
    """The best default routes of the prefix's table, the best first."""
    found = [r for r in host.kernel.routes if r.table == 1001 and r.kind is RouteKind.UNICAST]
    return sorted(found, key=lambda each: each.cost)


def test_what_waits_is_dropped_before_its_route_goes_and_until_another_leads() -> None:
    """And it is handed out all the time."""
    graceful = replace(HOME, type=AddressType.GRACEFUL_REPLACEMENT)
    host, chosen = Host(graceful), {(graceful.type, Family.IPV6): (1,)}
    host.kernel.set_link("eth1")
    host.settle()
    (way,) = _defaults(host)
    assert way.gateway == graceful.gateway

    host.kernel.set_link("eth0", carrier=False)
    host.table = host.table.with_prefix(
        replace(graceful, attached=False, unconfirmed=True, stands_in=True)
    )
    actions = host.plan()
    assert is_put(actions[0], PREFIXES)
    for action in actions:
        host.apply(action)
        assert host.maps.read().choices == chosen and host.maps.read().prefixes[1].waits
    host.settle()
    (waiting,) = _defaults(host)
    assert (waiting.interface, waiting.gateway) == ("eth0", None)

    host.table = host.table.with_prefix(replace(graceful, interface="eth1", stands_in=True))
    for action in host.plan():
        host.apply(action)
        assert host.maps.read().choices == chosen
        if not host.maps.read().prefixes[1].waits:
            assert [each.interface for each in _defaults(host)] == ["eth1"]
    host.settle()
    assert not host.maps.read().prefixes[1].waits


def test_who_connects_is_told_where_the_interface_itself_is_set_down() -> None:
    graceful = replace(HOME, type=AddressType.GRACEFUL_REPLACEMENT)
    host = Host(graceful).settle()
    host.kernel.set_link("eth0", up=False)
    host.table = host.table.with_prefix(
        replace(graceful, attached=False, unconfirmed=True, stands_in=True)
    )
    host.settle()
    assert not _defaults(host) and not host.maps.read().choices


def test_what_stands_in_is_handed_out_last() -> None:
    graceful = replace(HOME, type=AddressType.GRACEFUL_REPLACEMENT, preference=5)
    new = replace(graceful, id=2, name="new", network=OTHER, spans=(OTHER,), preference=0)
    host = Host(graceful, new).settle()
    assert host.maps.read().choices == {(graceful.type, Family.IPV6): (1, 2)}
    host.table = host.table.with_prefix(replace(graceful, stands_in=True))
    host.settle()
    assert host.maps.read().choices == {(graceful.type, Family.IPV6): (2, 1)}


@pytest.mark.parametrize("table", [SOURCES, SPANS])
def test_verdict_that_finds_no_room_stops_only_its_own_address(table: Table[Any, Any]) -> None:
    host = Host(HOME, replace(HOME, id=2, network=OTHER, spans=(OTHER,)))
    actions = host.plan()
    failed = next(a for a in actions if is_put(a, table))
    rest = still_safe([failed], actions[actions.index(failed) + 1 :])
    assert [a.address.address for a in rest if isinstance(a, AddAddress)] == [host.address(2)]
    assert [a for a in rest if isinstance(a, AddRoute | AddRule)]


def test_prefix_whose_verdict_finds_no_room_is_not_offered() -> None:
    host = Host(HOME, replace(HOME, id=2, network=OTHER, spans=(OTHER,))).settle()
    row = host.maps.read().prefixes[1]
    offer = [
        PREFIXES.put(1, row),
        PREFIXES.put(2, replace(row, pool=(host.address(2),))),
    ]
    choices = [
        CHOICES.put(FIXED6, (1, 2)),
        CHOICES.put((AddressType.NONPERSISTENT, Family.IPV6), (2,)),
    ]
    failed = SOURCES.put(host.address(1), SourceRow(1, AddressType.FIXED))
    assert still_safe([failed], [*offer, *choices]) == [offer[1], choices[1]]


def test_no_address_is_added_while_what_others_send_from_it_cannot_be_refused() -> None:
    host = Host(HOME, replace(HOME, id=2, network=OTHER, spans=(OTHER,)))
    failed, *rest = [a for a in host.plan() if not isinstance(a, Put)]
    assert failed == AddRule(REFUSAL)
    left = still_safe([failed], rest)
    assert [a.address.address for a in left if isinstance(a, AddAddress)] == [host.address(2)]


def test_an_address_that_will_not_go_stays_guarded() -> None:
    host = Host(HOME).settle()
    address = host.address()
    host.table = host.table.without(1)
    for action in host.plan():
        if not isinstance(action, RemoveAddress):
            host.apply(action)
    assert kinds(host.plan()) == ["RemoveAddress"]
    assert host.maps.read().sources[address].type is AddressType.FIXED


def test_table_and_rules_lead_by_the_gateway_or_nowhere() -> None:
    host = Host(HOME)
    lan = Route(254, Family.IPV6, ip_network("2001:db8:f::/64"), interface="eth0", metric=256)
    link_local = Route(254, Family.IPV6, ip_network("fe80::/64"), interface="eth0", metric=256)
    other = Route(254, Family.IPV4, ip_network("192.0.2.0/24"), interface="eth0")
    host.kernel.main_routes = [lan, link_local, other]
    host.settle()
    source = host.address()
    unreachable = Route(1001, Family.IPV6, None, RouteKind.UNREACHABLE, metric=0xFFFFFFFF)
    assert host.kernel.routes == {
        Route(1001, Family.IPV6, None, RouteKind.UNICAST, "eth0", HOME.gateway, source),
        replace(lan, table=1001, source=source),
        replace(link_local, table=1001),
        unreachable,
    }
    assert host.kernel.rules == {
        Rule(Family.IPV6, 500, 1001, mark=0x100, mask=0xFF00),
        Rule(Family.IPV6, 502, 1001, source=NET, local_only=True),
        REFUSAL,
    }
    host.kernel.set_link("eth0", up=False)
    host.settle()
    assert host.kernel.routes == {unreachable}, "from the prefix by no other gateway"
    assert host.maps.read().choices == {}, "as if the link were gone"


def test_of_two_main_routes_to_one_place_the_prefix_prefers_the_one_over_its_own_link() -> None:
    host = Host(HOME)
    host.kernel.set_link("eth1")
    lan = Route(254, Family.IPV6, ip_network("2001:db8:f::/64"), interface="eth1", metric=256)
    host.kernel.main_routes = [lan, replace(lan, interface="eth0")]
    host.settle()
    copies = {r.interface: r.metric for r in host.kernel.routes if r.destination == lan.destination}
    assert copies == {"eth0": 256, "eth1": 257}, "the other serves sockets that are bound to it"


def test_a_flushed_address_is_withdrawn_before_it_is_put_back() -> None:
    host = Host(HOME).settle()
    host.kernel.vanish(host.address(), "lo")
    assert kinds(host.step())[:2] == ["Drop choices", "Drop prefixes"]
    host.settle()
    assert host.maps.read().choices == {FIXED6: (1,)}


def test_of_several_addresses_only_the_flushed_one_is_withdrawn() -> None:
    host = Host(replace(HOME, pool=3)).settle()
    first, second, third = host.table.addresses_of(1)
    host.kernel.vanish(second, "lo")
    action = host.plan()[0]
    assert isinstance(action, Put) and action.table == PREFIXES
    assert action.row.pool == (first, third)


@pytest.mark.parametrize("pool", [1, 3])
def test_a_flushed_address_is_not_handed_out_while_another_prefix_is_made(pool: int) -> None:
    host = Host(replace(HOME, pool=pool)).settle()
    other = replace(HOME, id=2, network=OTHER, spans=(OTHER,), placement=Placement.ON_LINK)
    host.table = host.table.with_prefix(other)
    host.kernel.vanish(host.address(), "lo")
    for action in host.plan():
        host.apply(action)
        if isinstance(action, KernelAction):
            row = host.maps.read().prefixes.get(1)
            assert row is None or host.kernel.read().ready.issuperset(row.pool)


@pytest.mark.parametrize("lost", ["slot", "own", "spare"])
def test_a_row_of_which_anything_is_not_held_is_withdrawn_before_its_first_address_changes(
    lost: str,
) -> None:
    """An any-IP slot, addresses of sockets' own, a spare. While all is held, the row may stay."""
    pool = {"slot": 20, "own": 1, "spare": 3}[lost]
    host = Host(replace(HOME, pool=pool, per_socket=lost == "own")).settle()
    row = host.maps.read().prefixes[1]
    if lost == "own":
        former = NET[-2]
        host.kernel.add_foreign(LocalAddress(former, 128, "lo", ours=False))
        old = replace(row, pool=(former,))
    else:
        first, second, *others = row.pool
        spares = int(lost == "spare")
        old = replace(
            row,
            pool=(second, first, *others),
            configured=row.configured - spares,
            spares=spares,
            configured_spares=spares,
        )
    assert not withdraws(host, old)
    if lost == "spare":
        host.kernel.vanish(old.pool[-1], "lo")
    else:
        host.kernel.routes = {r for r in host.kernel.routes if r.kind is not RouteKind.LOCAL}
    assert withdraws(host, old)


def withdraws(host: Host, old: PrefixRow) -> bool:
    """Whether the plan begins with taking the row away, if it is this one now."""
    state = host.kernel.read()
    want = desired(host.table, host.classes, host.cgroups, state, NUMBERS)
    want = replace(want, sources={**want.sources, old.pool[0]: SourceRow(1, AddressType.FIXED)})
    have = replace(observe(state, host.maps.read()), prefixes={1: old})
    return any(isinstance(a, Drop) and a.table == PREFIXES for a in plan(want, have, state))


def test_an_address_of_another_length_is_withdrawn_before_it_is_made_anew() -> None:
    host = Host(HOME).settle()
    key = host.address(), "lo"
    host.kernel.addresses[key] = replace(host.kernel.addresses[key], prefix_length=64)
    assert kinds(host.step())[:2] == ["Drop choices", "Drop prefixes"]
    host.settle()
    assert host.maps.read().choices == {FIXED6: (1,)}


def test_an_on_link_address_is_deprecated_and_waits_for_detection() -> None:
    host = Host(replace(HOME, placement=Placement.ON_LINK))
    host.step()
    (local,) = host.kernel.read().addresses
    assert (local.interface, local.deprecated, local.ready) == ("eth0", True, False)
    assert host.step() == [], "no route, no row while tentative"
    host.kernel.finish_dad(local.address, "eth0")
    assert kinds(host.step()) == ["AddRoute", "Put prefixes", "Put choices"]


def test_a_duplicate_address_gives_way_to_the_next() -> None:
    host = Host(replace(HOME, placement=Placement.ON_LINK))
    host.step()
    duplicate = host.address()
    host.kernel.finish_dad(duplicate, "eth0", unique=False)
    assert host.plan() == []
    host.table = host.table.with_conflict(duplicate)
    actions = host.step()
    assert AddAddress in map(type, actions) and RemoveAddress in map(type, actions)
    host.kernel.finish_dad(host.address(), "eth0")
    host.settle()
    assert host.maps.read().prefixes[1].pool == (host.address(),) != (duplicate,)


def test_a_large_pool_is_local_by_a_route_beyond_its_first_sixteen() -> None:
    host = Host(replace(HOME, pool=100)).settle()
    row = host.maps.read().prefixes[1]
    assert (len(row.pool), row.configured) == (100, 16)
    assert len(host.kernel.addresses) == 16
    any_ip = Route(255, Family.IPV6, NET, RouteKind.LOCAL, "lo")
    assert any_ip in host.kernel.routes
    assert host.maps.read().spans[NET].any_ip
    host.kernel.routes.discard(any_ip)
    action = host.plan()[0]
    assert isinstance(action, Put) and action.table == PREFIXES and len(action.row.pool) == 16


def test_prefixes_whose_uplink_can_carry_serve_by_preference_then_order() -> None:
    def other(id_: int, **changes: object) -> TypedPrefix:
        net = IPv6Network(f"2001:db8:{id_}::/64")
        made = replace(HOME, id=id_, name=f"p{id_}", network=net, spans=(net,), order=id_)
        return replace(made, **changes)  # type: ignore[arg-type]

    host = Host(HOME, other(2, interface="eth1"), other(3, preference=1), other(4))
    host.kernel.set_link("eth1")
    host.settle()
    assert host.maps.read().choices[FIXED6] == (3, 1, 2, 4)
    before = host.kernel.routes
    for up, carrier in ((False, True), (True, False)):
        host.kernel.set_link("eth0", up, carrier)
        host.settle()
        assert host.maps.read().choices[FIXED6] == (2,)
        host.kernel.set_link("eth0")
        host.settle()
        assert host.maps.read().choices[FIXED6] == (3, 1, 2, 4)
        assert host.kernel.routes == before
    host.kernel.remove_link("eth0")
    host.settle()
    assert host.maps.read().choices[FIXED6] == (2,)


def test_prefixes_that_wander_stand_before_others_as_good_and_by_the_period() -> None:
    """Another one is first in each period; with a lost uplink the next one, and nothing else."""

    def other(id_: int, **changes: object) -> TypedPrefix:
        net = IPv6Network(f"2001:db8:{id_}::/64")
        made = replace(HOME, id=id_, name=f"p{id_}", network=net, spans=(net,), order=id_)
        return replace(made, **changes)  # type: ignore[arg-type]

    stays, best = other(2), other(3, preference=1)
    host = Host(HOME, stays, best)
    firsts = []
    for period in range(6):
        wandering = [
            other(4, interface="eth1", wander_s=60, period=period),
            other(5, wander_s=60, period=period),
        ]
        host.table = host.table.with_only([HOME, stays, best, *wandering])
        host.kernel.set_link("eth1")
        host.settle()
        chosen = host.maps.read().choices[FIXED6]
        assert (chosen[0], *chosen[3:]) == (3, 1, 2)
        assert sorted(chosen[1:3]) == [4, 5]
        firsts.append(chosen[1])
        host.kernel.set_link("eth1", False)
        assert kinds(host.step()) == ["Put choices"]
        assert host.maps.read().choices[FIXED6] == (3, 5, 1, 2)
    assert firsts in ([4, 5] * 3, [5, 4] * 3)


@pytest.mark.parametrize("allowed", [False, True])
def test_somebody_elses_address_in_a_typed_prefix(allowed: bool) -> None:
    host = Host(replace(HOME, untyped_allowed=allowed))
    inside, outside = ip_address("2001:db8:1::99"), ip_address("2001:db8:9::1")
    host.kernel.add_foreign(LocalAddress(inside, 64, "eth0", ours=False))
    host.kernel.add_foreign(LocalAddress(outside, 64, "eth0", ours=False))
    host.settle()
    sources = host.maps.read().sources
    assert sources[inside] == (SourceRow() if allowed else SourceRow(1, AddressType.FIXED))
    assert sources[outside] == SourceRow()
    by_source = {r.source for r in host.kernel.rules if r.source}
    assert by_source == ({ip_network(host.address())} if allowed else {NET})


def test_an_address_that_the_network_gave_in_a_typed_prefix_passes_by_our_rules() -> None:
    host = Host(HOME)
    given = ip_address("2001:db8:1::99")
    host.kernel.add_foreign(LocalAddress(given, 64, "eth0", ours=False, from_network=True))
    host.settle()
    assert host.maps.read().sources[given] == SourceRow()
    past = [r for r in host.kernel.rules if r.action is RuleAction.GOTO]
    assert [(r.source, r.goto, r.local_only) for r in past] == [(ip_network(given), 504, True)]
    assert Rule(Family.IPV6, 504, 0, action=RuleAction.NOTHING) in host.kernel.rules
    assert REFUSAL in host.kernel.rules, "others may not send from there all the same"


def test_broadcast_addresses_are_known_as_such() -> None:
    host = Host()
    host.kernel.add_foreign(
        LocalAddress(
            IPv4Address("192.0.2.1"),
            24,
            "eth0",
            ours=False,
            broadcasts=(IPv4Address("192.0.2.255"),),
        )
    )
    host.settle()
    assert host.maps.read().sources == {
        IPv4Address("192.0.2.1"): SourceRow(),
        IPv4Address("192.0.2.255"): SourceRow(broadcast=True),
    }


def test_an_address_like_ours_that_somebody_else_put_there_is_used_but_never_removed() -> None:
    host = Host(HOME)
    host.kernel.add_foreign(LocalAddress(host.address(), 128, "lo", ours=False))
    host.settle()
    assert host.maps.read().prefixes[1].pool == (host.address(),)
    host.table = host.table.without(1)
    host.settle()
    assert len(host.kernel.addresses) == 1


def test_an_address_like_ours_in_the_wrong_place_is_not_ours() -> None:
    host = Host(replace(HOME, placement=Placement.ON_LINK))
    host.kernel.add_foreign(LocalAddress(host.address(), 128, "lo", ours=False))
    host.step()
    host.step()
    assert host.maps.read().prefixes == {}, "neighbours could not resolve it yet"


def test_new_rules_stand_before_old_ones_go_when_a_prefix_is_renamed() -> None:
    host = Host(HOME).settle()
    host.table = host.table.with_only([replace(HOME, id=2, name="new")])
    order = kinds(host.step())
    assert "AddAddress" not in order and "RemoveAddress" not in order
    assert max(i for i, k in enumerate(order) if k == "AddRule") < order.index("RemoveRule")
    host.settle()
    assert set(host.maps.read().prefixes) == {2}


def test_a_cgroup_never_names_a_class_that_is_not_there() -> None:
    host = Host()
    policy = ClassPolicy(1, "ssh", frozenset({AddressType.FIXED}), cgroups=("a",))
    host.classes, host.cgroups = {1: policy}, {77: CgroupRow(1)}
    assert host.step() == [CLASSES.put(1, class_row(policy)), CGROUPS.put(77, CgroupRow(1))]
    assert host.plan() == [], "the maps hold no names, and need none"
    host.classes, host.cgroups = {}, {}
    assert kinds(host.step()) == ["Drop cgroups", "Drop classes"]


def test_a_type_changes_for_all_that_is_denied_before_it_is_offered() -> None:
    host = Host(HOME).settle()
    host.table = host.table.with_only([replace(HOME, type=AddressType.NONPERSISTENT)])
    new = SourceRow(1, AddressType.NONPERSISTENT)
    actions = host.plan()
    assert actions[:2] == [CHOICES.drop(FIXED6), PREFIXES.drop(1)]
    assert is_put(actions[2], SPANS) and actions[3] == SOURCES.put(host.address(), new)
    assert kinds(actions[4:]) == ["Put prefixes", "Put choices"]


def test_after_a_failure_only_what_does_not_depend_on_it_goes_on() -> None:
    one = AddRule(Rule(Family.IPV6, 500, 1001))
    other = AddRule(Rule(Family.IPV6, 500, 1002))
    drop = PREFIXES.drop(3)
    failed = AddRoute(Route(1001, Family.IPV6, None))
    assert still_safe([failed], [one, other, drop]) == [other, drop]
    assert still_safe([drop], [one, other]) == []
    (address,) = [a for a in Host(HOME).plan() if isinstance(a, AddAddress)]
    assert still_safe([address], [one, drop]) == [one, drop]


def test_what_may_be_tried_together_is_a_run_of_one_kind_in_which_none_waits_for_another() -> None:
    routes = [AddRoute(Route(table, Family.IPV6, None)) for table in (1001, 1002)]
    rules = [AddRule(Rule(Family.IPV6, 500, table)) for table in (1001, 1002)]
    actions: list[Action] = [PREFIXES.drop(3), PREFIXES.drop(4), *routes, *rules]
    assert together(actions) == 1, "what can't be withdrawn ends the plan"
    assert together(actions, 2) == together(actions, 4) == 2
    assert together(actions, 6) == together([]) == 0
    assert still_safe([], actions) == actions
    assert still_safe(routes[:1], rules) == rules[1:]
    assert still_safe(routes, rules) == []


def test_no_class_goes_while_a_cgroup_could_not_be_moved_out_of_it() -> None:
    host = Host()
    old, new = ClassPolicy(1, "old"), ClassPolicy(2, "new")
    host.classes, host.cgroups = {1: old}, {77: CgroupRow(1), 78: CgroupRow(1)}
    host.settle()
    host.classes, host.cgroups = {2: new}, {77: CgroupRow(2), 78: CgroupRow(2)}
    put, stuck, moved, drop = host.plan()
    assert (stuck, drop) == (CGROUPS.put(77, CgroupRow(2)), CLASSES.drop(1))
    assert still_safe([stuck], [drop]) == []
    assert still_safe([moved], [drop, AddRoute(Route(1, Family.IPV6, None))]) == [
        AddRoute(Route(1, Family.IPV6, None))
    ]
    for action in (put, moved):
        host.apply(action)
    assert host.step() == [stuck, drop], "when the cgroup can be moved"
