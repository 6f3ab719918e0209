"""What a plan may still do when one of its actions could not be done."""

from collections.abc import Callable, Sequence

from odm_agent.core.actions import (
    Action,
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    DropSource,
    DropSpan,
    DropUplink,
    Guard,
    PutCgroup,
    PutChoice,
    PutPrefix,
    PutSource,
    PutSpan,
    PutUplink,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
    Unguard,
)
from odm_agent.core.host import Rule, RuleAction
from odm_agent.core.model import IPAddress
from odm_agent.reconcile.planning import holds, refuses


def still_safe(failed: Action, rest: Sequence[Action]) -> list[Action]:
    """What of the plan may still be done when `failed` could not be.

    A route or rule that failed stops only its own table, a verdict (for which a map has no room, or
    a rule that refuses) only what it is about, a guard nothing; all that depends on an address
    waits for a later plan anyway. After a failure to withdraw or to offer nothing is done.
    """
    match failed:
        case AddAddress() | RemoveAddress() | AddLabel() | RemoveLabel() | Guard() | Unguard():
            return list(rest)
        case PutUplink() | DropUplink():
            return list(rest)
        case AddRule(Rule(action=RuleAction.PROHIBIT, source=network)):
            # Nor may others go in whose place it was to stand.
            stay = [a for a in rest if not (isinstance(a, RemoveRule) and refuses(a.rule))]
            return _without(stay, lambda address: holds(network, [address]))
        case PutSpan(network):
            return _without(rest, lambda address: holds(network, [address]))
        case PutSource(lacking):
            return _without(rest, lambda address: address == lacking)
        case RemoveRule(Rule(action=RuleAction.PROHIBIT)) | PutCgroup() | DropSource() | DropSpan():
            return list(rest)
        case AddRoute() | RemoveRoute() | AddRule() | RemoveRule():
            return [a for a in rest if _table_of(a) != _table_of(failed)]
        case _:
            return []


def _without(rest: Sequence[Action], lacks: Callable[[IPAddress], bool]) -> list[Action]:
    """The rest without all that would bring an address into use whose verdict is not recorded."""
    stopped = {
        a.prefix_id for a in rest if isinstance(a, PutPrefix) and any(map(lacks, a.row.pool))
    }

    def may(action: Action) -> bool:
        match action:
            case AddAddress(address):
                return not lacks(address.address)
            case PutPrefix(prefix_id):
                return prefix_id not in stopped
            case PutChoice(_, _, prefix_ids):
                return stopped.isdisjoint(prefix_ids)
            case _:
                return True

    return [action for action in rest if may(action)]


def _table_of(action: Action) -> int | None:
    match action:
        case AddRoute(route) | RemoveRoute(route):
            return route.table
        case AddRule(rule) | RemoveRule(rule):
            return rule.table
        case _:
            return None
