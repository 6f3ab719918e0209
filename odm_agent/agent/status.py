"""How things stand: prefixes, addresses, and what a person should look at."""

from collections.abc import Iterator

from odm_agent.agent.state import State
from odm_agent.config.advice import gateway_trouble
from odm_agent.control.answers import AddressState, PrefixState
from odm_agent.core.model import IPAddress
from odm_agent.core.projection import PrefixRow
from odm_agent.datapath import catalogue
from odm_agent.prefixes import selection
from odm_agent.prefixes.table import Row
from odm_agent.text import printable


def offered(state: State) -> dict[int, PrefixRow]:
    """The prefixes of which hooks hand out addresses now."""
    absent = {r.prefix.id for r in state.engine.table if selection.absence(r, state.engine.host)}
    rows = state.engine.datapath.prefixes()
    return {prefix_id: row for prefix_id, row in rows.items() if prefix_id not in absent}


def prefix_state(state: State, row: Row) -> tuple[PrefixState, str]:
    """Whether hooks hand out its addresses, and why not or what else is wrong."""
    if (why := selection.absence(row, state.engine.host)) is not None:
        return "withdrawn", why
    trouble = row.trouble or ""
    if row.prefix.id in state.engine.datapath.prefixes():
        return "ready", trouble
    if not row.addresses:
        return "withdrawn", trouble
    return "waiting", "addresses are being checked or configured"


def address_state(state: State, row: Row, address: IPAddress) -> AddressState:
    """Where an address stands on its way to being usable."""
    if address in row.conflicts:
        return "failed"
    held = [
        local
        for local in state.engine.host.addresses
        if local.address == address and local.interface == row.holder
    ]
    if any(local.failed for local in held):
        return "failed"
    if selection.absence(row, state.engine.host) is not None:
        return "withdrawn"
    if address not in row.configured:
        return "anyip"
    return "ready" if any(local.ready for local in held) else "tentative"


def alarms(state: State) -> list[str]:
    """What a person should look at now."""
    refused = [
        f"cgroup {printable(each.path)} is not classified by {each.pattern!r}: {each.reason}"
        for each in state.cgroups.refused
    ]
    return [
        *_unattached(state),
        *state.engine.alarms(),
        *_lost_creation(state),
        *_gateways(state),
        *_unrecorded(state),
        *_not_followed(state),
        *refused,
    ]


def _unrecorded(state: State) -> list[str]:
    if (trouble := state.addresses.trouble) is None:
        return []
    return [f"addresses are not recorded, and may be others after a restart: {trouble}"]


def _not_followed(state: State) -> list[str]:
    if state.not_followed is None:
        return []
    return [f"new cgroups wait for the agent: {state.not_followed}"]


def _lost_creation(state: State) -> list[str]:
    if not state.lost_creation():
        return []
    return [
        "packet and XDP sockets are not refused at their creation any more (a pin was removed);"
        " start the agent again"
    ]


def _gateways(state: State) -> list[str]:
    """Gateways that are this host's own, or that it can't reach."""
    return [
        f"{row.prefix.name}: {trouble}"
        for row in state.engine.table
        if row.prefix.gateway is not None
        and (
            trouble := gateway_trouble(row.prefix.interface, row.prefix.gateway, state.engine.host)
        )
    ]


def _unattached(state: State) -> Iterator[str]:
    found = state.attachments()
    if found.absent:
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
