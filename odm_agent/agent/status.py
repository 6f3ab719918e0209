"""How things stand: prefixes, addresses, and what a person should look at."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from odm_agent.agent.state import Attachments, State
from odm_agent.control.answers import AddressState, PrefixState
from odm_agent.core.errors import OdmError
from odm_agent.core.model import IPAddress
from odm_agent.core.projection import PrefixRow
from odm_agent.datapath import catalogue
from odm_agent.prefixes import selection
from odm_agent.prefixes.table import Row
from odm_agent.text import printable

_Part = Callable[[State], Iterable[str]]


def offered(state: State) -> dict[int, PrefixRow]:
    """The prefixes of which hooks hand out addresses now."""
    absent = {
        number
        for row in state.engine.table
        if row.prefix.lingering or selection.absence(row, state.engine.host)
        for number in (row.prefix.id, *(seat.number for seat in row.prefix.seats))
    }
    rows = state.engine.datapath.prefixes()
    return {prefix_id: row for prefix_id, row in rows.items() if prefix_id not in absent}


def prefix_state(state: State, row: Row) -> tuple[PrefixState, str]:
    """Whether hooks hand out its addresses, and why not or what else is wrong."""
    if (why := selection.absence(row, state.engine.host)) is not None:
        return "withdrawn", why
    if row.prefix.lingering:
        return "withdrawn", "its time is over; addresses stay until their last socket is gone"
    trouble = row.trouble or ""
    if row.prefix.id in state.engine.datapath.prefixes():
        return "ready", trouble
    if row.prefix.by_class and not row.prefix.seats:
        return "withdrawn", "no class may use its type"
    if not row.addresses:
        return "withdrawn", trouble
    return "waiting", "addresses are being checked or configured"


def address_states(state: State) -> Iterator[tuple[Row, IPAddress, AddressState]]:
    """Where each address of the table stands on its way to being usable, those in conflict too."""
    host = state.engine.host
    for row in state.engine.table:
        absent = selection.absence(row, host) is not None
        configured = set(row.configured)
        conflicts = row.conflicts
        for address in (*row.addresses, *sorted(conflicts, key=int)):
            held = host.at(address, row.holder)
            if address in conflicts or any(local.failed for local in held):
                yield row, address, "failed"
            elif absent or address in row.forgotten:
                yield row, address, "withdrawn"
            elif address not in configured:
                yield row, address, "anyip"
            else:
                ready = any(local.ready for local in held)
                yield row, address, "ready" if ready else "tentative"


def alarms(state: State, attached: Callable[[], Attachments] | None = None) -> list[str]:
    """What a person should look at now. `attached` is `State.attachments`, or what it answered."""
    found = [
        f"{what} failed, and is tried again: {why}" for what, why in sorted(state.troubles.items())
    ]
    unattached: _Part = partial(_unattached, attached or state.attachments)
    for part in (unattached, *_PARTS):
        try:
            found += part(state)
        except OdmError as error:  # no descriptor is left, say: the others are told
            found.append(f"not all alarms can be told: {error}")
    return found


def _refused(state: State) -> list[str]:
    return [
        f"cgroup {printable(each.path)} is not classified by {each.pattern!r}: {each.reason}"
        for each in state.cgroups.refused
    ]


def _of_engine(state: State) -> list[str]:
    return state.engine.alarms()


def _unrecorded(state: State) -> list[str]:
    if (lost := state.journal.lost) is not None:
        return [lost]
    found = []
    if (trouble := state.addresses.trouble) is not None:
        found.append(f"addresses are not recorded, and may be others after a restart: {trouble}")
    if (trouble := state.leases.trouble) is not None:
        found.append(f"leases are not recorded, and may end with the agent: {trouble}")
    if (trouble := state.usage.trouble) is not None:
        found.append(f"what is sent is not recorded, and budgets begin anew at a boot: {trouble}")
    if (trouble := state.cgroup_book.trouble) is not None:
        found.append(
            "classes of cgroups are not recorded, and an upgrade may forget those of removed ones:"
            f" {trouble}"
        )
    if (trouble := state.handovers.trouble) is not None:
        found.append(
            f"handovers are not recorded, and may be counted wrong after a restart: {trouble}"
        )
    if (trouble := state.host_settings.trouble) is not None:
        found.append(f"interfaces' settings are left as they are: {trouble}")
    return found


def _not_followed(state: State) -> list[str]:
    found = []
    if state.not_followed is not None:
        found.append(f"new cgroups wait for the agent: {state.not_followed}")
    if state.unwatched is not None:
        found.append(f"new cgroups are not noticed everywhere: {state.unwatched}")
    return found


def _lost_creation(state: State) -> list[str]:
    if not state.lost_creation():
        return []
    return [
        "packet and XDP sockets are not refused at their creation any more (a pin was removed);"
        " start the agent again"
    ]


def _unattached(attached: Callable[[], Attachments], state: State) -> Iterator[str]:
    found = attached()
    if found.uncertain:
        yield (
            f"it can't be told whether anything is enforced: neither {state.attached_to} nor the"
            f" pins in {state.config.agent.pin_dir} can be found (a file system may be mounted over"
            " them); unmount that, or start the agent again"
        )
    elif found.absent:
        whole = len(found.absent) == len(catalogue.CGROUP)
        what = "nothing is enforced" if whole else "enforced in part"
        yield (
            f"{what}: {', '.join(found.absent)} not attached to {state.attached_to} (it was removed"
            " and made again, or a pin was); start the agent again"
        )
    if found.hidden:
        yield (
            f"enforced by programs whose pins are hidden: {', '.join(found.hidden)} are attached,"
            f" but not pinned in {state.config.agent.pin_dir} (a bpf file system was mounted over"
            " it, or pins were removed); unmount that, or start the agent again, which pins them"
        )


_PARTS: Final[tuple[_Part, ...]] = (
    _of_engine,
    _lost_creation,
    _unrecorded,
    _not_followed,
    _refused,
)
