"""No order of events, crashes and failures leaves a row without an address, or one without owner.

A namespace and maps in memory, events of all kinds in any order, and the agent's loop (read, plan,
apply) cut short anywhere. The invariants are checked after every single action.
"""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from odm_agent.core import tables
from odm_agent.core.actions import (
    Action,
    AddAddress,
    AddRule,
    DatapathAction,
    KernelAction,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.errors import DatapathError, KernelError
from odm_agent.core.host import Hop, LocalAddress, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import (
    AddressType,
    ClassPolicy,
    Family,
    IPAddress,
    IPNetwork,
    Placement,
    TypedPrefix,
)
from odm_agent.core.projection import CgroupRow
from odm_agent.core.tables import Drop, Put, Table
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable
from odm_agent.reconcile.failure import still_safe, together
from odm_agent.reconcile.planning import plan
from odm_agent.reconcile.projections import desired, observe

#: Seconds: a host that does other things, too, is slow, and that is no fault.
pytestmark = pytest.mark.timeout(600)

NUMBERS = Numbers(table_base=865300, rule_priority=8653, mark_mask=0xFF000000, protocol=86)
LINKS = ("w0", "w1")
ROUNDS = 6
TYPES = st.sampled_from([t for t in AddressType if t])


def _prefix(id_: int, network: str, placement: Placement) -> TypedPrefix:
    net = ip_network(network)
    range_ = None
    spans: tuple[IPv6Network, ...] | tuple[object, ...] = (net,)
    if net.version == 4 and placement is Placement.ON_LINK:
        range_ = (IPv4Address(int(net[0]) + 16), IPv4Address(int(net[0]) + 23))
        spans = (ip_network(f"{range_[0]}/29"),)
    return TypedPrefix(
        id=id_,
        name=f"p{id_}",
        type=AddressType.FIXED,
        network=net,
        interface="w0",
        gateway=ip_address("fe80::1" if net.version == 6 else "10.0.0.1"),
        placement=placement,
        spans=spans,  # type: ignore[arg-type]
        range=range_,
        order=id_,
    )


PREFIXES = (
    _prefix(1, "2001:db8:1::/64", Placement.DELEGATED),
    _prefix(2, "2001:db8:2::/64", Placement.ON_LINK),
    _prefix(3, "192.0.2.0/28", Placement.DELEGATED),
    _prefix(4, "198.51.100.0/24", Placement.ON_LINK),
    _prefix(5, "2001:db8:5::/60", Placement.DELEGATED),
)
FOREIGN = tuple(
    map(ip_address, ("2001:db8:1::99", "2001:db8:2::99", "198.51.100.17", "10.0.0.9", "fd00::9"))
)
MAIN_ROUTES = (
    Route(254, Family.IPV4, ip_network("10.0.0.0/24"), interface="w0"),
    Route(254, Family.IPV6, ip_network("fe80::/64"), interface="w0", metric=256),
    Route(254, Family.IPV6, ip_network("fe80::/64"), interface="w1", metric=256),
    Route(254, Family.IPV6, ip_network("fd00::/64"), interface="w1", metric=256),
    Route(254, Family.IPV4, ip_network("10.0.0.0/25"), RouteKind.PROHIBIT),
    Route(254, Family.IPV6, ip_network("fd00:7::/64"), hops=(Hop("w0"), Hop("w1"))),
)


def _net(rule: Rule) -> IPNetwork:
    assert rule.source is not None
    return rule.source


class World(RuleBasedStateMachine):
    """One host, its maps, and an agent that may be interrupted at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = FakeKernel()
        self.datapath = FakeDatapath()
        self.table = PrefixTable(b"secret")
        self.classes = {0: ClassPolicy(0, "unclassified")}
        self.cgroups: dict[int, CgroupRow] = {}
        for name in LINKS:
            self.kernel.set_link(name)
        self._mirror_routes()

    # --- configuration ---

    @rule(
        base=st.sampled_from(PREFIXES),
        type_=TYPES,
        interface=st.sampled_from(LINKS),
        pool=st.sampled_from([1, 2, 3, 20]),
        preference=st.integers(0, 1),
        untyped=st.booleans(),
        forwarded=st.booleans(),
    )
    def configure_prefix(
        self,
        base: TypedPrefix,
        type_: AddressType,
        interface: str,
        pool: int,
        preference: int,
        untyped: bool,
        forwarded: bool,
    ) -> None:
        limit = 8 if base.family is Family.IPV4 else 20
        prefix = replace(
            base,
            type=type_,
            interface=interface,
            pool=min(pool, limit),
            preference=preference,
            untyped_allowed=untyped,
            forwarded=forwarded,
        )
        if self.table.by_id(base.id + 10) is None:  # else the networks would overlap
            self.table = self.table.with_prefix(prefix)

    @rule(id_=st.integers(1, len(PREFIXES)), new_id=st.booleans())
    def rename_or_move_prefix(self, id_: int, new_id: bool) -> None:
        """The same network under another id, or delegated instead of on-link."""
        row = self.table.by_id(id_)
        if row is None:
            return
        if new_id:
            prefix = replace(row.prefix, id=id_ + 10)
            self.table = self.table.without(id_).with_prefix(prefix)
        elif row.prefix.family is Family.IPV6:
            other = {Placement.DELEGATED: Placement.ON_LINK, Placement.ON_LINK: Placement.DELEGATED}
            prefix = replace(row.prefix, placement=other[row.prefix.placement])
            self.table = self.table.with_prefix(prefix)

    @precondition(lambda self: self.table.rows)
    @rule(data=st.data())
    def remove_prefix(self, data: st.DataObject) -> None:
        self.table = self.table.without(data.draw(st.sampled_from(self.table.rows)).prefix.id)

    @rule(id_=st.integers(1, 2), allow=st.frozensets(TYPES), there=st.booleans())
    def configure_class(self, id_: int, allow: frozenset[AddressType], there: bool) -> None:
        """One that goes leaves its cgroups to the other, if that is there."""
        if there:
            self.classes[id_] = ClassPolicy(id_, f"c{id_}", allow, cgroups=("a",))
            return
        self.classes.pop(id_, None)
        heirs = {c: CgroupRow(3 - id_) for c, r in self.cgroups.items() if r.class_id == id_}
        self.cgroups = {c: r for c, r in self.cgroups.items() if r.class_id != id_}
        if 3 - id_ in self.classes:
            self.cgroups |= heirs

    @rule(cgroup=st.integers(100, 102), default=st.none() | TYPES, data=st.data())
    def classify_cgroup(
        self, cgroup: int, default: AddressType | None, data: st.DataObject
    ) -> None:
        class_id = data.draw(st.sampled_from(sorted(self.classes)))
        if class_id:
            self.cgroups[cgroup] = CgroupRow(class_id, default)
        else:
            self.cgroups.pop(cgroup, None)

    # --- the world outside ---

    @rule(name=st.sampled_from(LINKS), up=st.booleans(), carrier=st.booleans())
    def set_link(self, name: str, up: bool, carrier: bool) -> None:
        self.kernel.set_link(name, up, carrier)
        self._mirror_routes()

    @rule(name=st.sampled_from(LINKS))
    def remove_link(self, name: str) -> None:
        self.kernel.remove_link(name)

    @precondition(lambda self: self.kernel.addresses)
    @rule(data=st.data())
    def flush_address(self, data: st.DataObject) -> None:
        address, interface = data.draw(st.sampled_from(list(self.kernel.addresses)))
        self.kernel.vanish(address, interface)

    @precondition(lambda self: self.kernel.routes)
    @rule(data=st.data())
    def flush_route(self, data: st.DataObject) -> None:
        self.kernel.routes.discard(data.draw(st.sampled_from(sorted(self.kernel.routes, key=str))))

    @precondition(lambda self: self.kernel.rules)
    @rule(data=st.data())
    def flush_rule(self, data: st.DataObject) -> None:
        self.kernel.rules.discard(data.draw(st.sampled_from(sorted(self.kernel.rules, key=str))))

    @rule(address=st.sampled_from(FOREIGN), name=st.sampled_from(("lo", *LINKS)))
    def add_foreign_address(self, address: IPAddress, name: str) -> None:
        if name in self.kernel.links:
            broadcasts = (IPv4Address("10.0.0.255"),) if address.version == 4 else ()
            length = 24 if address.version == 4 else 64
            self.kernel.add_foreign(
                LocalAddress(address, length, name, ours=False, broadcasts=broadcasts)
            )

    @rule(id_=st.integers(1, len(PREFIXES)), name=st.sampled_from(("lo", *LINKS)))
    def add_foreign_address_like_ours(self, id_: int, name: str) -> None:
        if name in self.kernel.links and (addresses := self.table.addresses_of(id_)):
            self.kernel.add_foreign(
                LocalAddress(addresses[0], addresses[0].max_prefixlen, name, ours=False)
            )

    @rule(unique=st.booleans(), data=st.data())
    def finish_dad(self, unique: bool, data: st.DataObject) -> None:
        pending = [k for k, a in self.kernel.addresses.items() if not a.ready and not a.failed]
        if pending:
            address, interface = data.draw(st.sampled_from(pending))
            self.kernel.finish_dad(address, interface, unique)
            if not unique:
                self.table = self.table.with_conflict(address)

    # --- the agent ---

    @rule(count=st.integers(0, 30))
    def reconcile_until_crash(self, count: int) -> None:
        self._round(self._plan()[:count])

    @rule(
        kind=st.sampled_from([*get_args(KernelAction), *get_args(DatapathAction), *tables.ALL]),
        count=st.integers(0, 2),
        first=st.booleans(),
    )
    def reconcile_with_failures(
        self, kind: type | Table[Any, Any], count: int, first: bool
    ) -> None:
        """The first few actions of one kind, or on one table, are refused, or all others of it."""

        def is_chosen(action: Action) -> bool:
            if isinstance(kind, type):
                return isinstance(action, kind)
            return isinstance(action, Put | Drop) and action.table == kind

        rest, seen = self._plan(), 0
        while together_now := together(rest):
            tried, rest = rest[:together_now], rest[together_now:]
            failed = []
            for action in tried:
                seen += is_chosen(action)
                if is_chosen(action) and (seen <= count) is first:
                    self._fail(action)
                    failed.append(action)
                else:
                    self._round([action])
            rest = still_safe(failed, rest)

    @rule()
    def reconcile_once(self) -> None:
        """Whatever happened outside, one plan later nothing is handed out that is not there."""
        self._round(self._plan())
        self._check_offers()
        offered = self.datapath.read().prefixes
        for row in self.table:
            if row.prefix.id in offered:
                prefix = offered[row.prefix.id]
                held = [
                    self.kernel.addresses[a, row.holder] for a in prefix.pool[: prefix.configured]
                ]
                assert all(local.ready and not local.failed for local in held)

    @rule(unique=st.booleans())
    def converge(self, unique: bool) -> None:
        """Left alone, the agent comes to rest soon, at exactly what the table means."""
        for _ in range(4 * ROUNDS):
            self._settle_dad(unique)
            actions = self._plan()
            if not actions and not self._pending():
                break
            self._round(actions)
        else:
            pytest.fail(f"no rest: {actions}")
        host = self.kernel.read()
        want = desired(self.table, self.classes, self.cgroups, host, NUMBERS)
        have = observe(host, self.datapath.read())
        assert have == want
        owned = {a for row in self.table for a in row.configured}
        assert {a.address for a in host.addresses if a.ours} <= owned
        for row in self.table:
            if row.prefix.interface in self.kernel.links and row.addresses:
                assert row.prefix.id in have.prefixes
        for chosen in have.choices.values():
            rows = [row for row in self.table if row.prefix.id in chosen]
            assert all(self.kernel.links[row.prefix.interface].up for row in rows)

    @invariant()
    def nothing_typed_is_unguarded(self) -> None:
        self._check()

    # --- helpers ---

    def _plan(self) -> list[Action]:
        host = self.kernel.read()
        want = desired(self.table, self.classes, self.cgroups, host, NUMBERS)
        return plan(want, observe(host, self.datapath.read()), host)

    def _round(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._apply(action)
            self._check()
            if isinstance(action, KernelAction):
                self._check_offers()
            if isinstance(action, AddRule) and action.rule.table:
                assert action.rule.table in self._dead_ends()
            if isinstance(action, AddAddress):
                assert self._refuses_others(action.address.address)
            if isinstance(action, RemoveRule) and action.rule.action is RuleAction.PROHIBIT:
                ours = (a.address for a in self.kernel.addresses.values() if a.ours)
                assert all(self._refuses_others(a) for a in ours if a in _net(action.rule))
            if isinstance(action, RemoveRoute) and action.route.kind is RouteKind.UNREACHABLE:
                assert action.route.table not in {r.table for r in self.kernel.rules}

    def _apply(self, action: Action) -> None:
        if isinstance(action, KernelAction):
            self.kernel.apply(action)
        else:
            self.datapath.apply(action)

    def _fail(self, action: Action) -> None:
        """The action is refused; its neighbours are not."""

        def kernel_fault(_: KernelAction) -> None:
            raise KernelError("refused")

        def datapath_fault(_: object) -> None:
            raise DatapathError("refused")

        normal = self.kernel.fault, self.datapath.fault
        self.kernel.fault, self.datapath.fault = kernel_fault, datapath_fault
        try:
            with pytest.raises((KernelError, DatapathError)):
                self._apply(action)
        finally:
            self.kernel.fault, self.datapath.fault = normal

    def _check(self) -> None:
        """What holds after every single action and event."""
        maps = self.datapath.read()
        for (type_, family), chosen in maps.choices.items():
            for prefix_id in chosen:
                row = maps.prefixes[prefix_id]
                assert (row.type, row.family) == (type_, family)
        for local in self.kernel.addresses.values():
            if local.ours:
                verdict = maps.sources[local.address]
                assert verdict.type is not AddressType.UNSPECIFIED
                assert any(
                    span.version == local.address.version and local.address in span
                    for span in maps.spans
                )
        for cgroup in maps.cgroups.values():
            assert cgroup.class_id in maps.classes

    def _check_offers(self) -> None:
        """Rows name only what is there; an outside event may break this up to the next plan.

        Withdrawals come first in a plan, so it holds from its first kernel action on.
        """
        held = self._ready()
        local = [r.destination for r in self.kernel.routes if r.kind is RouteKind.LOCAL]
        for row in self.datapath.read().prefixes.values():
            assert held.issuperset(row.pool[: row.configured])
            for address in row.pool[row.configured :]:
                assert any(address in n for n in local if n and n.version == address.version)

    def _dead_ends(self) -> set[int]:
        """The tables from which no packet falls through to another gateway."""
        return {r.table for r in self.kernel.routes if r.kind is RouteKind.UNREACHABLE}

    def _refuses_others(self, address: IPAddress) -> bool:
        """What others send from `address` is not forwarded, unless the configuration wants it."""
        span = self.table.span_of(address)
        return (span is not None and span.prefix.forwarded) or any(
            address in _net(r) for r in self.kernel.rules if r.action is RuleAction.PROHIBIT
        )

    def _ready(self) -> set[IPAddress]:
        return {a.address for a in self.kernel.addresses.values() if a.ready and not a.failed}

    def _pending(self) -> list[tuple[IPAddress, str]]:
        return [k for k, a in self.kernel.addresses.items() if not a.ready and not a.failed]

    def _settle_dad(self, unique: bool) -> None:
        for address, interface in self._pending():
            self.kernel.finish_dad(address, interface, unique)
            if not unique:
                self.table = self.table.with_conflict(address)

    def _mirror_routes(self) -> None:
        links = self.kernel.links
        self.kernel.main_routes = [
            r for r in MAIN_ROUTES if all(i in links and links[i].enabled for i in r.interfaces)
        ]


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=200, stateful_step_count=40)
