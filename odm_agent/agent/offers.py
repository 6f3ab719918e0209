"""What sockets are given after a pass, as the machine wants to know it."""

from collections.abc import Callable, Mapping, Set
from functools import cache

from odm_agent.agent.engine import Engine
from odm_agent.core.events import Offered
from odm_agent.core.grants import Want
from odm_agent.core.host import HostState
from odm_agent.core.model import Family, IPAddress
from odm_agent.prefixes.selection import absence, is_local_as_a_whole
from odm_agent.prefixes.table import Row


def offers(engine: Engine) -> dict[Want, IPAddress]:
    """For each want the address that is given first, of those that the kernel held, ready, when it
    was read.
    """
    return _offers(engine, _firsts(engine, engine.host.ready))


def _offers(engine: Engine, firsts: Mapping[int, IPAddress]) -> dict[Want, IPAddress]:
    found: dict[Want, IPAddress] = {}
    for want, prefix_ids in engine.datapath.choices().items():
        for prefix_id in prefix_ids:
            if prefix_id in firsts:
                found.setdefault(want, firsts[prefix_id])
    return found


def _firsts(engine: Engine, held: Set[IPAddress]) -> dict[int, IPAddress]:
    """By the ids of prefixes the first address that is given and held: of the prefix, or of one of
    its seats. From what waits nothing leaves yet.
    """
    rows = engine.datapath.prefixes()
    firsts = {
        i: row.pool[0]
        for i, row in rows.items()
        if row.pool and row.pool[0] in held and not row.waits
    }
    for (prefix_id, _), number in sorted(engine.datapath.seats().items()):
        if prefix_id in rows and number in firsts:
            firsts.setdefault(prefix_id, firsts[number])
    return firsts


def offered(
    engine: Engine,
    *,
    finished: bool,
    own_fault: bool = False,
    behind: bool = False,
    settled: bool = True,
    ended: Set[int] = frozenset(),
    ended_leases: Set[int] = frozenset(),
    watched: Set[int] = frozenset(),
    in_use: Callable[[], Set[IPAddress] | None] = frozenset,
) -> Offered:
    """What came of the pass that has just ended.

    `behind`: cgroups wait to be looked at; `settled`: but none that callers wait for.
    `in_use` says which addresses sockets have, None if that can't be found out now.

    An address counts only if the kernel held it, ready, when it was read: rows of a pass that
    failed may name more. A prefix of `ended` counts as used as long as hooks may hand it out, one
    that is `watched` only if a socket has an address of it.
    """
    held = engine.host.ready
    firsts = _firsts(engine, held)
    given = _offers(engine, firsts)
    rows, choices = engine.datapath.prefixes(), engine.datapath.choices()
    used = cache(in_use)
    leased = {lease.id: address for row in engine.table for address, lease in row.leases.items()}
    chosen = frozenset(prefix_id for ids in choices.values() for prefix_id in ids)
    return Offered(
        offers=given,
        ready=chosen.intersection(firsts),
        usable=settled and engine.all_usable(),
        behind=behind,
        finished=finished,
        own_fault=own_fault,
        to_probe=frozenset(engine.to_probe),
        unused=_unused(engine, ended - chosen, used),
        ready_leases=_ready_leases(engine, held),
        unused_leases=_unused_leases(leased, ended_leases, used),
        idle=_unused(engine, watched, used) if watched else None,
        stalled=frozenset(row.prefix.id for row in engine.table if _is_stalled(row, engine.host)),
        on_net=frozenset(
            want
            for want, prefix_ids in choices.items()
            if want in given and any(i in rows and rows[i].on_net for i in prefix_ids)
        ),
        own=frozenset(i for i, row in rows.items() if row.fresh and row.family is Family.IPV6),
    )


def _is_stalled(row: Row, host: HostState) -> bool:
    """Whether a prefix serves no socket before its uplink, or its configuration, is another one."""
    return absence(row, host) is not None or not any(map(row.serves, row.addresses))


def _ready_leases(engine: Engine, held: frozenset[IPAddress]) -> frozenset[int]:
    """Of addresses that an interface holds, or that are local by a route."""
    ready: set[int] = set()
    for row in engine.table:
        by_route = row.unconfigured if is_local_as_a_whole(row, engine.host) else ()
        there = held.union(by_route) if row.leases else held
        ready |= {lease.id for address, lease in row.leases.items() if address in there}
    return frozenset(ready)


def _unused(
    engine: Engine, prefix_ids: Set[int], in_use: Callable[[], Set[IPAddress] | None]
) -> frozenset[int]:
    if not prefix_ids or (addresses := in_use()) is None:
        return frozenset()
    spans = map(engine.table.span_of, addresses)
    return frozenset(prefix_ids - {row.prefix.id for row in spans if row is not None})


def _unused_leases(
    leased: Mapping[int, IPAddress],
    lease_ids: Set[int],
    in_use: Callable[[], Set[IPAddress] | None],
) -> frozenset[int]:
    if not lease_ids or (used := in_use()) is None:
        return frozenset()
    return frozenset(each for each in lease_ids if leased.get(each) not in used)
