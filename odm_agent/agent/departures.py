"""Ends sockets whose address an uplink of others has no more, where their class says so."""

import logging

from odm_agent.agent.sockets import classes_of
from odm_agent.agent.state import State
from odm_agent.agent.tidings import tell_end
from odm_agent.core.errors import OdmError
from odm_agent.core.model import IPAddress
from odm_agent.kernel.sock_destroy import end_sockets
from odm_agent.kernel.sock_diag import SocketInfo
from odm_agent.prefixes.left import Served, Serving, left
from odm_agent.prefixes.table import Row

log = logging.getLogger(__name__)


class Departures:
    """What of managed uplinks sockets may have been given; looked at after each pass.

    Others already get what serves now when these end. What has changed while no agent ran is found
    by nobody: those sockets end as without us.
    """

    def __init__(self, state: State) -> None:
        """Nothing is known yet."""
        self._state = state
        self._serving: Serving = {}

    def look(self, wall_s: float) -> None:
        """End what is over as of the look at the host that has just ended."""
        before, engine = self._serving, self._state.engine
        self._serving, over = left(before, engine.table, engine.host)
        for address in over:
            self._end(address, before[address], wall_s)

    def _end(self, address: IPAddress, served: Served, wall_s: float) -> None:
        row = self._state.engine.table.by_id(served.prefix_id)
        if row is None:
            return
        extra: dict[str, object] = {"address": str(address)}
        try:
            extra["sockets"] = self._ended(address, row)
        except OdmError as error:
            extra["error"] = str(error)
        log.info("an address of an uplink is over", extra=extra)
        told = "; ".join(f"{what}: {n}" for what, n in extra.items() if what != "address")
        tell_end(self._state.events, row, str(address), told, wall_s)

    def _ended(self, address: IPAddress, row: Row) -> int:
        """How many sockets were ended: typed ones, of classes that want it so."""
        engine = self._state.engine
        if not any(each.ends_on_handover for each in engine.classes.values()):
            return 0
        class_of = classes_of(self._state)

        def wanted(info: SocketInfo) -> bool:
            mark = engine.numbers.of_mark(info.mark)
            if row.prefix.shared and mark != row.prefix.mark_id:  # it is everybody's address there
                return False
            found = class_of(info)
            return found is not None and found.ends_on_handover

        return end_sockets(address, wanted)
