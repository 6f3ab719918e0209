"""MPTCP connections go on through a handover: the path manager gets the new address as an endpoint.

Only for classes that want it, and only while a connection of one has an address of a type that is
given up by a handover, and sockets are given another one of that type now. The kernel's worker,
which opens subflows of new connections, is of no class, so hooks refuse it typed addresses; but
those of connections that there are it opens within the call that adds the endpoint. So that is done
by a process of the class. Connections of others try to join by it as well: what may not have the
address sends nothing (egress asks for the class of the connection), and is ended at once.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.agent.sockets import classes_of
from odm_agent.agent.state import State
from odm_agent.core.errors import KernelError
from odm_agent.core.handover import waits
from odm_agent.core.host import HostState
from odm_agent.core.model import AddressType, ClassPolicy, Family, IPAddress
from odm_agent.core.projection import PrefixRow
from odm_agent.kernel import cgroups as kernel_cgroups
from odm_agent.kernel.mptcp import Endpoint, PathManager
from odm_agent.kernel.sock_destroy import end_sockets
from odm_agent.kernel.sock_diag import SocketInfo, sockets
from odm_agent.prefixes.table import PrefixTable

log = logging.getLogger(__name__)

#: The ids of our endpoints. The kernel counts up from 1 for those that ask for none.
OURS: Final = range(224, 256)
#: States of a connection that may still send.
_ALIVE: Final = frozenset({"ESTAB", "CLOSE-WAIT"})
_JOINS: Final = "SYN-SENT"


@dataclass(frozen=True, slots=True)
class _Successor:
    """What sockets of a class are given now of a type: the first address, and all of them."""

    address: IPAddress
    prefix_id: int
    row: PrefixRow


#: By class, type and IP version.
_Given = Mapping[tuple[int, AddressType, Family], _Successor]


def ours(endpoints: Iterable[Endpoint], host: HostState) -> list[Endpoint]:
    """Those that an agent has added: by their ids, and since their addresses are the agent's."""
    made = {local.address for local in host.addresses if local.ours}
    return [each for each in endpoints if each.id in OURS and each.address in made]


class MptcpEndpoints:
    """Looked at after each pass; knows what addresses were, as long as connections have them."""

    def __init__(self, state: State) -> None:
        """Nothing is known yet."""
        self._state = state
        self._added: dict[IPAddress, Endpoint] = {}
        self._given: _Given = {}
        self._types: dict[IPAddress, AddressType] = {}
        self._typed: PrefixTable | None = None
        #: By cookie and address, what was tried already: a peer may refuse further subflows.
        self._tried: set[tuple[int, IPAddress]] = set()

    def find(self) -> None:
        """Know again what an agent before this one has added, before addresses go. KernelError."""
        engine = self._state.engine
        with PathManager() as manager:
            there = manager.endpoints()
        if any(each.id in OURS for each in there):
            host = engine.host if engine.host.links else engine.kernel.read()
            self._added = {each.address: each for each in ours(there, host)}

    def look(self, *, again: bool) -> None:
        """Add what connections need since the last pass, and remove what has gone. KernelError.

        `again`: look at connections though they are given the same as before.
        """
        wanting = [each for each in self._state.engine.classes.values() if each.follows_by_mptcp]
        self._remove_gone(wanted=bool(wanting))
        if not wanting:
            return
        self._note_types()
        given = dict(self._successors(wanting))
        if again or given != self._given:
            present = {each.address for each in given.values()}
            self._tried = {each for each in self._tried if each[1] in present}
            self._follow(given)
            self._given = given

    def _remove_gone(self, *, wanted: bool) -> None:
        held = {local.address for local in self._state.engine.host.addresses} if wanted else set()
        gone = [each for each in self._added.values() if each.address not in held]
        if not gone:
            return
        with PathManager() as manager:
            for each in gone:
                manager.remove(each)
                del self._added[each.address]
                log.info("MPTCP endpoint removed", extra={"address": str(each.address)})

    def _note_types(self) -> None:
        table = self._state.engine.table
        if table is self._typed:
            return
        for row in table:
            if not row.prefix.shared and not waits(row.prefix.type):
                self._types |= dict.fromkeys(row.addresses, row.prefix.type)
        self._typed = table

    def _successors(
        self, wanting: Iterable[ClassPolicy]
    ) -> Iterator[tuple[tuple[int, AddressType, Family], _Successor]]:
        engine = self._state.engine
        choices, rows = engine.datapath.choices(), engine.datapath.prefixes()
        seats, ready = engine.datapath.seats(), engine.host.ready
        for policy in wanting:
            for (type_, family), prefix_ids in choices.items():
                if type_ not in policy.allow or waits(type_):
                    continue
                for prefix_id in prefix_ids:
                    row = rows.get(seats.get((prefix_id, policy.id), prefix_id))
                    if row and not row.shared and row.pool and row.pool[0] in ready:
                        found = _Successor(row.pool[0], prefix_id, row)
                        yield (policy.id, type_, family), found
                        break

    def _follow(self, given: _Given) -> None:
        listed = [each for each in sockets() if not each.remnant]
        connections = [e for e in listed if e.protocol == "mptcp" and e.state in _ALIVE]
        class_of = classes_of(self._state)
        subflows: dict[int, set[IPAddress]] = defaultdict(set)
        for each in listed:
            if each.protocol == "tcp" and each.inode:
                subflows[each.inode].add(each.local)
        waiting: dict[IPAddress, list[SocketInfo]] = defaultdict(list)
        types: dict[IPAddress, AddressType] = {}
        for each in connections:
            policy, type_ = class_of(each), self._type_of(each.local)
            if policy is None or not policy.follows_by_mptcp or type_ is None:
                continue
            types[each.local] = type_
            successor = given.get((policy.id, type_, Family.of(each.local)))
            if successor is None or self._has_present(each.local, successor):
                continue
            if successor.address not in subflows[each.inode]:
                waiting[successor.address].append(each)
        self._types, self._typed = types, None
        self._note_types()
        live = {e.local for e in listed if e.protocol == "tcp" and e.state in _ALIVE}
        for address, holders in waiting.items():
            self._join(address, holders, is_used=address in live)

    def _type_of(self, address: IPAddress) -> AddressType | None:
        """The type of an address that sockets have, or had; None: of none that is given up."""
        row = self._state.engine.table.span_of(address)
        if row is not None and not row.prefix.shared:
            return None if waits(row.prefix.type) else row.prefix.type
        return self._types.get(address)

    def _has_present(self, address: IPAddress, successor: _Successor) -> bool:
        """Whether an address is one of those that sockets are given now."""
        if address in successor.row.pool:
            return True
        row = self._state.engine.table.span_of(address)
        of_its_own = successor.row.fresh or successor.row.on_request
        return bool(of_its_own and row and row.prefix.id == successor.prefix_id)

    def _join(self, address: IPAddress, holders: Sequence[SocketInfo], *, is_used: bool) -> None:
        """Have connections join from an address."""
        trying = {(each.cookie, address) for each in holders} - self._tried
        if not trying:
            return
        with PathManager() as manager:
            there = manager.endpoints()
            present = next((each for each in there if each.address == address), None)
            if present is not None and (present != self._added.get(address) or is_used):
                return  # somebody else's, or the subflows of other connections are from there
            if present is not None:
                manager.remove(present)
            free = set(OURS) - {each.id for each in there}
            if not free:
                raise KernelError(
                    f"adding MPTCP endpoint {address}: no id from {OURS[0]} on is free; remove"
                    " endpoints that nobody needs (ip mptcp endpoint show)"
                )
            endpoint = Endpoint(max(free), address)
            manager.add(endpoint, self._place_of(holders))
        self._added[address] = endpoint
        self._tried |= trying
        ended = end_sockets(address, self._joins_in_vain(address))
        extra = {"address": str(address), "connections": len(holders), "ended": ended}
        log.info("MPTCP endpoint added", extra=extra)

    def _place_of(self, holders: Iterable[SocketInfo]) -> Path:
        """The cgroup.procs of a cgroup in which one of these connections was made."""
        root = self._state.attached_to
        for cgroup_id in dict.fromkeys(each.cgroup_id for each in holders):
            if (path := kernel_cgroups.path_of(root, cgroup_id)) is not None:
                return path / "cgroup.procs"
        raise KernelError(
            "the cgroups of MPTCP connections have gone; these go on with the subflows they have"
        )

    def _joins_in_vain(self, address: IPAddress) -> Callable[[SocketInfo], bool]:
        """What tells subflows that are being opened for connections which may not have it."""
        class_of = classes_of(self._state)
        type_ = self._type_of(address)

        def is_one(info: SocketInfo) -> bool:
            policy = class_of(info)
            allowed = policy is not None and type_ in policy.allow
            return info.state == _JOINS and not allowed

        return is_one
