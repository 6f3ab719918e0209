"""Which addresses of uplinks that others manage are over by a handover, for each type as it says.

Their manager has taken one away, or its router has forgotten its prefix, or another interface that
fits serves in the place of the one before. That a carrier is lost is none of these: what is left of
it in a second nobody knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from odm_agent.core.handover import HANDOVER, Old
from odm_agent.core.host import HostState
from odm_agent.core.model import IPAddress
from odm_agent.prefixes.table import PrefixTable, Row


@dataclass(frozen=True, slots=True)
class Served:
    """Of which prefix (its id) an address has served last, and on which interface."""

    prefix_id: int
    interface: str


#: What sockets may have been given of managed uplinks, and is not over yet.
Serving = Mapping[IPAddress, Served]


def left(before: Serving, table: PrefixTable, host: HostState) -> tuple[Serving, list[IPAddress]]:
    """What serves now, or may come back; and what of `before` is over."""
    managed = [row for row in table if row.prefix.managed]
    serving = {
        address: Served(row.prefix.id, row.prefix.interface)
        for row in managed
        for address in row.addresses
        if row.serves(address)
    }
    if not before:
        return serving, []
    rows = {row.prefix.id: row for row in managed}
    held = {local.address for local in host.addresses if not local.failed}
    over: list[IPAddress] = []
    waiting: dict[IPAddress, Served] = {}
    for address, served in before.items():
        row = rows.get(served.prefix_id)
        if address in serving or row is None:  # nothing has moved where the configuration has
            continue
        if _is_over(row, address, served, host, is_held=address in held):
            over.append(address)
        elif address in held:
            waiting[address] = served
    return {**serving, **waiting}, over


def _is_over(
    row: Row, address: IPAddress, served: Served, host: HostState, *, is_held: bool
) -> bool:
    old = HANDOVER[row.prefix.type]
    if not is_held:
        return old in (Old.OVER, Old.GRACE)
    if old is not Old.OVER:  # it goes on, as long as whoever manages it keeps it
        return False
    link = host.links.get(served.interface)
    return address in row.forgotten or (link is not None and link.up)
