"""What a plan may still do when some of its actions could not be done."""

from collections.abc import Callable, Sequence, Set
from typing import Final

from odm_agent.core import tables
from odm_agent.core.actions import (
    Action,
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    Guard,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
    Unguard,
)
from odm_agent.core.host import Rule, RuleAction
from odm_agent.core.model import IPAddress, IPNetwork
from odm_agent.core.tables import Drop, Put
from odm_agent.reconcile.planning import refuses

#: Kinds of which each action may be tried whatever has become of others of the kind.
_INDEPENDENT: Final = frozenset[object](
    {
        AddAddress,
        RemoveAddress,
        AddLabel,
        RemoveLabel,
        AddRoute,
        RemoveRoute,
        AddRule,
        RemoveRule,
        (Put, tables.SPANS),
        (Drop, tables.SPANS),
        (Put, tables.SOURCES),
        (Drop, tables.SOURCES),
        (Put, tables.CGROUPS),
        (Put, tables.UPLINKS),
        (Drop, tables.UPLINKS),
        Guard,
        Unguard,
    }
)


def _kind(action: Action) -> object:
    return (type(action), action.table) if isinstance(action, Put | Drop) else type(action)


def together(plan: Sequence[Action], start: int = 0) -> int:
    """How many actions of a plan, from `start` on, may be tried as one: a run of one kind.

    The order within the run is to be kept, but one that fails stops none of the others. 0: the plan
    has no more.
    """
    if start >= len(plan):
        return 0
    kind = _kind(plan[start])
    if kind not in _INDEPENDENT:
        return 1
    return next(
        (n - start for n in range(start, len(plan)) if _kind(plan[n]) != kind), len(plan) - start
    )


def still_safe(failed: Sequence[Action], rest: Sequence[Action]) -> list[Action]:
    """What of the plan may still be done when `failed`, tried together, could not be.

    A route or rule that failed stops only its own table, a typing (for which a map has no room, or
    a rule that refuses) only what it is about, a guard nothing; all that depends on an address
    waits for a later plan anyway. No class is dropped while a cgroup, perhaps of it, could not be
    given another one. After a failure to withdraw or to offer nothing is done.
    """
    if not all(_kind(action) in _INDEPENDENT for action in failed):
        return []
    unsafe: set[int] = set()
    networks: list[IPNetwork | None] = []
    addresses: set[IPAddress] = set()
    refusals_stay = classes_stay = False
    for action in failed:
        match action:
            case AddRule(Rule(action=RuleAction.PROHIBIT, source=network)):
                # Nor may others go in whose place it was to stand.
                refusals_stay = True
                networks.append(network)
            case Put(tables.SPANS, network):
                networks.append(network)
            case Put(tables.SOURCES, address):
                addresses.add(address)
            case Put(tables.CGROUPS):
                classes_stay = True
            case RemoveRule(Rule(action=RuleAction.PROHIBIT)):
                pass
            case AddRoute() | RemoveRoute() | AddRule() | RemoveRule():
                unsafe |= _tables_of(action)
    rest = [
        action
        for action in rest
        if unsafe.isdisjoint(_tables_of(action))
        and not (refusals_stay and isinstance(action, RemoveRule) and refuses(action.rule))
        and not (classes_stay and _kind(action) == (Drop, tables.CLASSES))
    ]
    if not networks and not addresses:
        return rest
    return _without(
        rest,
        lambda each: each in addresses or any(_holds(network, each) for network in networks),
    )


def _holds(network: IPNetwork | None, address: IPAddress) -> bool:
    return network is not None and address.version == network.version and address in network


def _without(rest: Sequence[Action], lacks: Callable[[IPAddress], bool]) -> list[Action]:
    """The rest without all that would bring an address into use whose typing is not recorded."""
    stopped = {
        action.key
        for action in rest
        if isinstance(action, Put) and action.table == tables.PREFIXES
        if any(map(lacks, action.row.pool))
    }

    def may(action: Action) -> bool:
        match action:
            case AddAddress(address):
                return not lacks(address.address)
            case Put(tables.PREFIXES, prefix_id):
                return prefix_id not in stopped
            case Put(tables.SEATS, _, number):
                return number not in stopped
            case Put(tables.CHOICES, _, prefix_ids):
                return stopped.isdisjoint(prefix_ids)
            case _:
                return True

    return [action for action in rest if may(action)]


def _tables_of(action: Action) -> Set[int]:
    """The table that an action is about; none if it is about no route or rule."""
    match action:
        case AddRoute(route) | RemoveRoute(route):
            return {route.table}
        case AddRule(rule) | RemoveRule(rule):
            return {rule.table}
        case _:
            return frozenset()
