"""The addresses that end, and what was sent, as the control socket answers with."""

from collections.abc import Iterator, Mapping

import msgspec

from odm_agent.agent.standings import Standing, standings
from odm_agent.agent.state import State
from odm_agent.control.answers import LeaseView, Rotation, UsageView
from odm_agent.core.clock import NEVER, left_s
from odm_agent.core.errors import ControlError
from odm_agent.core.lifetimes import AddressLease, Phase
from odm_agent.core.model import UNCLASSIFIED
from odm_agent.core.wandering import Wanderers, wanderers_of
from odm_agent.datapath.base import Sent
from odm_agent.kernel.timer import now
from odm_agent.metrics.readings import Lifetimes
from odm_agent.prefixes.table import Row


def views(state: State) -> list[LeaseView]:
    """`odm-agent lifetimes`: what ends first comes first."""
    at_s, meters = now().boot_s, state.datapath.meters()
    standing = standings(state.engine)
    found = [
        (lease, _wandering(view, row, standing, at_s))
        for row in state.engine.table
        for lease, view in _views(row, meters, at_s)
    ]
    return [view for _, view in sorted(found, key=lambda each: _next_end(each[0]))]


def summary(state: State) -> list[Lifetimes]:
    """What is left of the current addresses of each prefix whose addresses end."""
    at_s, meters = now().boot_s, state.datapath.meters()
    return [_least_left(row, meters, at_s) for row in state.engine.table if _any_ends(row)]


def _any_ends(row: Row) -> bool:
    return any(_ends(row, lease) for lease in row.prefix.addresses)


def _least_left(row: Row, meters: Mapping[int, Sent], at_s: float) -> Lifetimes:
    prefix = row.prefix
    current = [lease for lease in prefix.addresses if lease.phase is Phase.CURRENT]
    budgets = [(prefix.terms_of(lease.class_name).budget, lease.id) for lease in current]
    left = [
        max(0, budget - meters.get(id_, Sent()).bytes)
        for budget, id_ in budgets
        if budget is not None
    ]
    bytes_left = min(left, default=None if prefix.terms.budget is None or current else 0)
    return Lifetimes(
        prefix=prefix.name,
        type=prefix.type,
        seconds_left=left_s(min(map(_next_end, current), default=NEVER), at_s),
        bytes_left=bytes_left,
        lingering=sum(lease.phase is Phase.LINGERING for lease in prefix.addresses),
    )


def _views(
    row: Row, meters: Mapping[int, Sent], at_s: float
) -> Iterator[tuple[AddressLease, LeaseView]]:
    for address, lease in _leased(row):
        if not _ends(row, lease):
            continue
        yield lease, _view(row, lease, address, meters.get(lease.id, Sent()), at_s)


def _ends(row: Row, lease: AddressLease) -> bool:
    """Whether an address ends: a class's own has a lease in any case."""
    if lease.phase is Phase.LINGERING or not row.prefix.by_class:
        return True
    return row.prefix.ends or row.prefix.terms_of(lease.class_name).end


def _leased(row: Row) -> list[tuple[str, AddressLease]]:
    if row.prefix.one_lease:
        return [(str(row.prefix.network), lease) for lease in row.prefix.addresses]
    return [(str(address), lease) for address, lease in row.leases.items()]


def _next_end(lease: AddressLease) -> float:
    ends = (lease.lifetime.preferred_until_s, lease.rotate_at_s)
    return lease.lifetime.valid_until_s if lease.phase is Phase.LINGERING else min(ends)


def _view(row: Row, lease: AddressLease, address: str, sent: Sent, at_s: float) -> LeaseView:
    terms = row.prefix.terms_of(lease.class_name)
    lingers = lease.phase is Phase.LINGERING
    return LeaseView(
        address=address,
        prefix=row.prefix.name,
        type=row.prefix.type.word,
        phase=lease.phase.value,
        used_seconds=at_s - lease.born_s,
        preferred_seconds_left=0.0 if lingers else left_s(lease.lifetime.preferred_until_s, at_s),
        valid_seconds_left=left_s(lease.lifetime.valid_until_s, at_s),
        rotates_in_seconds=None if lingers else left_s(lease.rotate_at_s, at_s),
        used_bytes=sent.bytes,
        used_packets=sent.packets,
        budget_bytes=terms.budget,
        warn_bytes=terms.warn,
        hard=terms.hard,
        class_=lease.class_name or None,
    )


def _wandering(
    view: LeaseView, row: Row, standing: Mapping[Wanderers, Standing], at_s: float
) -> LeaseView:
    """The same, with where its prefix stands if it wanders."""
    wanderers = wanderers_of(row.prefix)
    found = None if wanderers is None else standing.get(wanderers)
    if found is None:
        return view
    return msgspec.structs.replace(
        view, first=found.is_first(row), wanders_in_seconds=left_s(found.until_s, at_s)
    )


def named(state: State, what: str) -> dict[int, tuple[str, str]]:
    """The current addresses that `what` means, a type, prefix or address: prefix and address by
    the ids of their leases. ControlError if there is none that could rotate.
    """
    table = state.carried_out
    rows = [row for row in table if what in (row.prefix.name, row.prefix.type.word)]
    found = {
        lease.id: (row.prefix.name, str(address))
        for row in table
        for address, lease in row.leases.items()
        if lease.phase is Phase.CURRENT and (row in rows or str(address) == what)
        if _ends(row, lease)
    }
    if not found:
        why = "its addresses do not end" if rows else "no type, prefix or current address is that"
        raise ControlError(
            f"nothing of {what!r} can rotate: {why}; `odm-agent lifetimes` lists what can"
        )
    return found


def succeeded(state: State, wanted: dict[int, tuple[str, str]]) -> list[Rotation]:
    """Of these addresses, those in whose place sockets are given others: the youngest ones."""
    done: list[Rotation] = []
    for row in state.carried_out:
        current = {e: str(a) for a, e in row.leases.items() if e.phase is Phase.CURRENT}
        ids = {lease.id for lease in current}
        name = row.prefix.name
        gone = [old for id_, (of, old) in wanted.items() if of == name and id_ not in ids]
        youngest = sorted(current, key=lambda lease: lease.born_s, reverse=True)
        classes = {str(a): lease.class_name for a, lease in row.leases.items()}
        for old in gone:
            new = next((e for e in youngest if e.class_name == classes.get(old, "")), None)
            if new is not None:
                youngest.remove(new)
                done.append(Rotation(prefix=name, old=old, new=current[new]))
    return done


def usage(state: State, since_s: float) -> list[UsageView]:
    """`odm-agent usage`: what was sent since then (Unix seconds). Raises OdmError."""
    names = {**state.class_names, UNCLASSIFIED: ""}
    totals = state.usage.totals(state.datapath.traffic(), names, since_s)
    return [
        UsageView(class_=name or None, type=type_.word, bytes=sent.bytes, packets=sent.packets)
        for (name, type_), sent in sorted(totals.items())
        if sent.packets
    ]
