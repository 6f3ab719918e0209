"""What becomes of addresses and sockets, told as events."""

from collections.abc import Iterable, Iterator, Mapping

from odm_agent.agent.event_log import EventLog
from odm_agent.agent.meters import Turned, turned
from odm_agent.control.answers import Happened
from odm_agent.core.clock import Moment
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import UNCLASSIFIED
from odm_agent.datapath.base import KernelEvent
from odm_agent.prefixes.table import PrefixTable, Row


def tell_turns(
    log: EventLog,
    before: PrefixTable,
    after: PrefixTable,
    causes: Mapping[int, Cause],
    wall_s: float,
) -> list[Turned]:
    """Marks that leases have reached, and addresses in whose places others are: these are answered,
    as `turned` finds them.
    """
    for row in after:
        if (old := before.by_id(row.prefix.id)) is not None:
            for event, address in _marks(old, row):
                log.note(event, wall_s, **_of(row), address=address)
    _tell_deprecated(log, before, after, wall_s)
    turns = list(turned(before, after, causes))
    for turn in turns:
        log.note(
            "rotated",
            wall_s,
            prefix=turn.prefix.name,
            type=turn.prefix.type.word,
            address=str(turn.old),
            new=str(turn.new),
            detail=turn.cause.value,
        )
    return turns


def _tell_deprecated(log: EventLog, before: PrefixTable, after: PrefixTable, wall_s: float) -> None:
    """Prefixes that sockets are given no more, and those that they are given in their place."""
    former = {row.prefix.id for row in before if not row.prefix.lingering}
    for row in after:
        if not row.prefix.lingering:
            continue
        successors = [
            each
            for each in after
            if not (each.prefix.lingering or each.prefix.managed)
            and (each.prefix.type, each.prefix.family) == (row.prefix.type, row.prefix.family)
        ]
        new = str(successors[0].prefix.network) if successors else None
        told: Happened | None = None
        if row.prefix.id in former:
            told = "deprecated"
        elif new and not any(each.prefix.id in former for each in successors):
            told = "succeeded"
        if told is not None:
            log.note(told, wall_s, **_of(row), address=str(row.prefix.network), new=new)


def tell_end(log: EventLog, row: Row, address: str, ended: str, wall_s: float) -> None:
    """An address is ours no more; `ended`: what became of its connections."""
    log.note("ended", wall_s, **_of(row), address=address, detail=ended)


def tell_refusals(
    log: EventLog, told: Iterable[KernelEvent], classes: Mapping[int, str], now: Moment
) -> None:
    """What sockets were refused, by what the programs told."""
    for each in told:
        if each.kind == "refused":
            unknown = "unclassified" if each.class_id == UNCLASSIFIED else str(each.class_id)
            log.note(
                "refused",
                now.wall_s - (now.boot_s - each.boot_s),
                class_=classes.get(each.class_id) or unknown,
                type=each.type.word,
                detail=f"{each.reason}, at {each.hook}",
            )


def _marks(old: Row, new: Row) -> Iterator[tuple[Happened, str]]:
    """The leases that have reached a mark since, by their addresses."""
    was = {lease.id: lease for lease in old.prefix.addresses}
    leased = {lease.number: address for address, lease in new.leases.items()}
    for lease in new.prefix.addresses:
        if (before := was.get(lease.id)) is None or before.number != lease.number:
            continue
        address = str(new.prefix.network if new.prefix.one_lease else leased.get(lease.number, ""))
        if lease.spent and not before.spent:
            yield "spent", address
        elif lease.warned and not before.warned:
            yield "warned", address


def _of(row: Row) -> dict[str, str]:
    return {"prefix": row.prefix.name, "type": row.prefix.type.word}
