"""Ends sockets whose address an uplink of others has no more, where their class says so."""

from odm_agent.agent import endings
from odm_agent.agent.handovers import Handovers
from odm_agent.agent.state import State
from odm_agent.core.model import IPAddress
from odm_agent.prefixes.left import Served, Serving, left
from odm_agent.prefixes.table import Row


class Departures:
    """What of managed uplinks sockets may have been given; looked at after each pass.

    Others already get what serves now when these end. What has changed while no agent ran is found
    by nobody: those sockets end as without us.
    """

    def __init__(self, state: State, handovers: Handovers) -> None:
        """Nothing is known yet."""
        self._state, self._handovers = state, handovers
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
        what = "an address of an uplink"
        wanted = self._wanted(row)
        many = endings.end(self._state, row, address, wanted, wall_s, what=what)
        self._handovers.ended(row, address, wanted, many)

    def _wanted(self, row: Row) -> endings.Wanted | None:
        """Typed ones, of classes that want it so."""
        of_classes = endings.on_handover(self._state)
        if of_classes is None:
            return None
        is_typed = endings.typed(self._state, row)
        return lambda info: is_typed(info) and of_classes(info)
