"""Ends sockets of an address whose time is over, and tells of it."""

import logging
from collections.abc import Callable

from odm_agent.agent.sockets import classes_of
from odm_agent.agent.state import State
from odm_agent.agent.tidings import tell_end
from odm_agent.core.errors import OdmError
from odm_agent.core.model import IPAddress
from odm_agent.kernel.sock_destroy import end_sockets
from odm_agent.kernel.sock_diag import SocketInfo
from odm_agent.prefixes.table import Row

log = logging.getLogger(__name__)

Wanted = Callable[[SocketInfo], bool]


def each_one(info: SocketInfo) -> bool:
    """Each socket that has the address."""
    return True


def typed(state: State, row: Row) -> Wanted:
    """The sockets that have an address of a prefix as one of its type: an address that is shared is
    everybody's to those without the mark.
    """
    if not row.prefix.shared:
        return each_one
    of_mark, mark_id = state.engine.numbers.of_mark, row.prefix.mark_id
    return lambda info: of_mark(info.mark) == mark_id


def on_handover(state: State) -> Wanted | None:
    """The sockets that end by a handover: those of classes that want it so, since others may rather
    wait than begin anew. None: no class does.
    """
    if not any(each.ends_on_handover for each in state.engine.classes.values()):
        return None
    class_of = classes_of(state)
    return lambda info: (found := class_of(info)) is not None and found.ends_on_handover


def end(
    state: State, row: Row, address: IPAddress, wanted: Wanted | None, wall_s: float, *, what: str
) -> int:
    """End those of its sockets that are `wanted` (None: none is), and say that `what` is over; how
    many it were.

    Where that can't be done, that is told in the place of their number.
    """
    became: dict[str, object]
    many = 0
    try:
        many = end_sockets(address, wanted) if wanted is not None else 0
        became = {"sockets": many}
    except OdmError as error:
        became = {"error": str(error)}
    log.info("%s is over", what, extra={"address": str(address), **became})
    told = "; ".join(f"{word}: {said}" for word, said in became.items())
    tell_end(state.events, row, str(address), told, wall_s)
    return many
