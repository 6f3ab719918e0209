"""How far the leases of addresses are used up, as the programs tell it, or as it is found."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from odm_agent.core.events import Metered
from odm_agent.core.lifetimes import AddressLease, Cause, Phase
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
        for lease in row.prefix.addresses:
            terms = row.prefix.terms_of(lease.class_name)
            sent = meters.get(lease.id, Sent()).bytes
            if terms.warn and sent >= terms.warn and not lease.warned:
                warned.add(lease.id)
            if terms.budget and sent >= terms.budget and not lease.spent:
                spent.add(lease.id)
    return Metered(frozenset(warned), frozenset(spent)) if warned or spent else None


class Turned(NamedTuple):
    """An address in whose place another one is now, and why."""

    prefix: TypedPrefix
    old: IPAddress
    new: IPAddress
    cause: Cause


def turned(
    before: PrefixTable, after: PrefixTable, causes: Mapping[int, Cause]
) -> Iterator[Turned]:
    """The addresses in whose places others are now; `causes` by the ids of the old ones' leases.

    What turned without a cause of its own has the number that it had, in another network.
    """
    for row in after:
        old = before.by_id(row.prefix.id)
        if old is None:
            continue
        was, now = _current(old), _current(row)
        yield from (
            Turned(row.prefix, gone, new, causes.get(was[gone].id, Cause.CONFIGURATION))
            for class_name in dict.fromkeys(each.class_name for each in was.values())
            for gone, new in zip(
                _of_class(class_name, was, without=now),
                _of_class(class_name, now, without=was),
                strict=False,
            )
        )


def _of_class(
    class_name: str,
    addresses: Mapping[IPAddress, AddressLease],
    without: Mapping[IPAddress, AddressLease],
) -> list[IPAddress]:
    return [a for a, e in addresses.items() if e.class_name == class_name and a not in without]


def _current(row: Row) -> dict[IPAddress, AddressLease]:
    """With their leases."""
    return {a: lease for a, lease in row.leases.items() if lease.phase is Phase.CURRENT}
