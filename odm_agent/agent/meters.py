"""How far the leases of addresses are used up, as the programs tell it, or as it is found."""

from collections.abc import Iterable, Iterator, Mapping

from odm_agent.core.events import Metered
from odm_agent.core.lifetimes import Phase
from odm_agent.core.model import IPAddress, TypedPrefix
from odm_agent.datapath.base import KernelEvent, Sent
from odm_agent.prefixes.table import PrefixTable, Row


def metered(told: Iterable[KernelEvent]) -> Metered | None:
    """What the programs have told of leases; None: nothing."""
    events = list(told)
    warned = frozenset(each.lease for each in events if each.kind == "warn")
    spent = frozenset(each.lease for each in events if each.kind == "spent")
    return Metered(warned, spent) if warned or spent else None


def found(table: PrefixTable, meters: Mapping[int, Sent]) -> Metered | None:
    """What the meters say of leases, and was not told; None: nothing.

    The programs tell a mark once; what was lost then is found so.
    """
    warned, spent = set[int](), set[int]()
    for row in table:
        terms = row.prefix.terms
        for lease in row.prefix.addresses:
            sent = meters.get(lease.id, Sent()).bytes
            if terms.warn and sent >= terms.warn and not lease.warned:
                warned.add(lease.id)
            if terms.budget and sent >= terms.budget and not lease.spent:
                spent.add(lease.id)
    return Metered(frozenset(warned), frozenset(spent)) if warned or spent else None


def turned(
    before: PrefixTable, after: PrefixTable
) -> Iterator[tuple[TypedPrefix, IPAddress, IPAddress]]:
    """The addresses in whose places others are now: prefix, old one, new one."""
    for row in after:
        old = before.by_id(row.prefix.id)
        if old is None:
            continue
        was, now = _current(old), _current(row)
        yield from (
            (row.prefix, gone, new)
            for gone, new in zip(
                (each for each in was if each not in now),
                (each for each in now if each not in was),
                strict=False,
            )
        )


def _current(row: Row) -> list[IPAddress]:
    return [a for a, lease in row.leases.items() if lease.phase is Phase.CURRENT]
