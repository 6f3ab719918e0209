"""Looks after each pass at which prefixes serve, for the book of handovers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import ip_network
from typing import Final

from odm_agent.agent import endings
from odm_agent.agent.handover_book import Gone
from odm_agent.agent.state import State
from odm_agent.core.clock import Moment
from odm_agent.core.grants import Want
from odm_agent.core.leases import Lease
from odm_agent.core.model import Family, IPAddress, IPNetwork
from odm_agent.core.outages import Over, Seen, Way
from odm_agent.kernel.sock_diag import SocketInfo, sockets
from odm_agent.prefixes.selection import absence, ready_addresses
from odm_agent.prefixes.table import Row

#: Of an IPv6 uplink of others, addresses of one such network are alike: temporary ones come and go
#: (RFC 8981).
_ALIKE: Final = 64
#: The prefix and the interface by which a type is served.
_By = tuple[int, str] | None


class Handovers:
    """Of the passes of one agent."""

    def __init__(self, state: State) -> None:
        """It begins with what the agent before this one held."""
        self._state = state
        self._began: Moment | None = None
        self._served: dict[Want, tuple[_By, float]] = {}
        self._left: set[int] = set()
        for lease in state.held:
            self.lease(lease.grant.prefix.id, lease)

    def lease(self, prefix_id: int, lease: Lease | None) -> None:
        """What is known of a prefix has changed; None: it is gone."""
        if lease is not None and lease.handover:
            self._left.add(prefix_id)
        else:
            self._left.discard(prefix_id)

    def ended(self, row: Row, address: IPAddress, wanted: endings.Wanted | None, many: int) -> None:
        """An address is over by a handover, and so many of its sockets were ended, those that were
        `wanted` as in `endings.end`.
        """
        is_typed = endings.typed(self._state, row)

        def is_left(info: SocketInfo) -> bool:
            if info.local != address or not is_typed(info):
                return False
            return not (many and wanted is not None and wanted(info))

        self._state.handovers.ended(Gone(row.prefix.type, is_left), many)

    def begin(self, now: Moment) -> None:
        """A pass begins, or goes on where one was interrupted."""
        if self._began is None:
            self._began = now
            self._served.clear()

    def serving(self, given: Mapping[Want, IPAddress], now: Moment) -> None:
        """Within it sockets are given these. What stands in is not what is waited for."""
        before, self._served = self._served, {}
        for want, address in given.items():
            row = self._state.engine.table.span_of(address)
            if row is not None and row.prefix.stands_in:
                continue
            by = (row.prefix.id, row.prefix.interface) if row is not None else None
            known = before.get(want)
            self._served[want] = known if known and known[0] == by else (by, now.boot_s)

    def look(self, ready: Set[int], now: Moment) -> None:
        """The pass has ended; `ready` as in `Offered`. Raises OdmError."""
        book = self._state.handovers
        seen = self._seen(ready)
        began, self._began = self._began or now, None
        served_s = {want: since_s for want, (_, since_s) in self._served.items()}
        try:
            over = book.look(seen, began, served_s, now, self._state.events)
            book.write()  # what was in time is not lost with the agent, whatever follows
            book.count(over, self._has_moved, _counted)
        finally:
            book.write()

    def _seen(self, ready: Set[int]) -> Seen:
        table, host = self._state.engine.table, self._state.engine.host
        rows = {row.prefix.id: row for row in table}
        ways = {
            want: tuple(way for id_ in ids if id_ in rows for way in self._ways(rows[id_], ready))
            for want, ids in self._state.engine.datapath.choices().items()
        }
        lost: dict[int, str] = {}
        for id_, row in rows.items():
            if id_ in self._left:  # it lingers, or stands in
                lost[id_] = "the network to which the host is attached now does not serve it"
            elif not row.prefix.lingering and (why := absence(row, host)) is not None:
                lost[id_] = why
        held = (row.prefix for row in table if not row.prefix.lingering)
        return Seen(
            {want: each for want, each in ways.items() if each},
            lost,
            frozenset((prefix.type, prefix.family) for prefix in held),
        )

    def _ways(self, row: Row, ready: Set[int]) -> Iterator[Way]:
        prefix = row.prefix
        if prefix.id not in ready or prefix.stands_in:
            return
        networks: Iterable[IPNetwork] = (prefix.network,)
        if prefix.managed:
            there = ready_addresses(row, self._state.engine.host)
            networks = dict.fromkeys(map(_network_of, there))
        for network in networks:
            yield Way(prefix.id, prefix.name, network, prefix.interface, prefix.gateway)

    def _has_moved(self, over: Over, info: SocketInfo) -> bool:
        left = over.outage.left
        row = self._state.engine.table.by_id(left.prefix_id)
        if info.local not in left.network:
            return False
        return row is None or endings.typed(self._state, row)(info)


def _network_of(address: IPAddress) -> IPNetwork:
    alike = _ALIKE if Family.of(address) is Family.IPV6 else address.max_prefixlen
    return ip_network((address, alike), strict=False)


def _counted(kinds: list[Callable[[SocketInfo], bool]]) -> list[int]:
    found = [info for info in sockets() if not info.remnant]
    return [sum(map(kind, found)) for kind in kinds]
