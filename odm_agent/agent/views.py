"""The state as the shapes that the control socket answers with."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from odm_agent import __version__
from odm_agent.agent import sockets
from odm_agent.agent.state import State
from odm_agent.config.advice import gateway_trouble
from odm_agent.control.answers import (
    AddressState,
    AddressView,
    CapView,
    ClassView,
    Membership,
    PrefixState,
    PrefixView,
    Status,
)
from odm_agent.core.model import UNCLASSIFIED, AddressType, Cap, Family, IPAddress, Placement
from odm_agent.core.projection import PrefixRow
from odm_agent.datapath import abi, catalogue
from odm_agent.prefixes import selection
from odm_agent.prefixes.table import Row


def status(state: State) -> Status:
    """`odm-agent status`."""
    engine = state.engine
    pin_dir = state.config.agent.pin_dir
    return Status(
        version=__version__,
        abi=abi.ABI_TAG,
        pid=os.getpid(),
        since=state.started,
        config=str(state.path),
        config_loaded=state.reloads.loaded,
        reload_error=state.reloads.error,
        namespace_cookie=state.netns_cookie,
        cgroup=str(state.attached_to),
        pin_dir=pin_dir,
        programs=len(catalogue.CGROUP) - len(state.attachments().absent),
        prefixes=len(engine.table.rows),
        addresses=sum(len(row.pool) for row in offered(state).values()),
        classes=len(engine.classes) - 1,
        alarms=alarms(state),
    )


def alarms(state: State) -> list[str]:
    """What a person should look at now."""
    refused = [
        f"cgroup {each.path} is not classified by {each.pattern!r}: {each.reason}"
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


def prefixes(state: State) -> list[PrefixView]:
    """`odm-agent prefixes`."""
    return [_prefix(state, row) for row in state.engine.table]


def _prefix(state: State, row: Row) -> PrefixView:
    prefix, numbers = row.prefix, state.engine.numbers
    phase, reason = prefix_state(state, row)
    handed_out = offered(state).get(prefix.id)
    return PrefixView(
        id=prefix.id,
        name=prefix.name,
        type=prefix.type.word,
        prefix=str(prefix.network),
        family=_family(prefix.family),
        interface=prefix.interface,
        gateway=str(prefix.gateway) if prefix.gateway is not None else None,
        placement="delegated" if prefix.placement is Placement.DELEGATED else "on-link",
        pool=prefix.pool,
        state=phase,
        reason=reason,
        addresses=len(handed_out.pool) if handed_out else 0,
        table=numbers.table(prefix.id),
        mark=numbers.mark(prefix.id),
    )


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


def addresses(state: State) -> list[AddressView]:
    """`odm-agent addresses`."""
    live = sockets.count_by_address(state, sockets.typed_sockets(state))
    found = []
    for row in state.engine.table:
        for address in (*row.addresses, *sorted(row.conflicts, key=int)):
            found.append(
                AddressView(
                    address=str(address),
                    prefix=row.prefix.name,
                    type=row.prefix.type.word,
                    family=_family(row.prefix.family),
                    interface=row.holder,
                    state=address_state(state, row, address),
                    sockets=live.get(address, 0),
                )
            )
    return found


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


def classes(state: State) -> list[ClassView]:
    """`odm-agent classes`."""
    live: Counter[int] = Counter()
    listed = [each for each in sockets.typed_sockets(state) if not each.counted]
    for counts in (sockets.count_by_type(listed), sockets.count_live(state)):
        for (class_id, _, _), count in counts.items():
            live[class_id] += count
    usage = state.datapath.usage()
    return [
        ClassView(
            id=policy.id,
            name=policy.name,
            mode=policy.mode.word,
            allow=[type_.word for type_ in sorted(policy.allow)],
            default=policy.default.word if policy.default else None,
            strict=policy.strict,
            on_failure="closed" if policy.fail_closed else "open",
            cgroups=[str(state.attached_to / path) for path in state.cgroups.members[policy.name]],
            sockets=live[policy.id],
            refuse=sorted(kind.value for kind in policy.refuse),
            caps=[_cap(policy.id, cap, usage) for cap in sorted(policy.caps, key=lambda c: c.type)],
        )
        for policy in state.engine.classes.values()
        if policy.id != UNCLASSIFIED
    ]


def _cap(class_id: int, cap: Cap, usage: Mapping[tuple[int, AddressType], int]) -> CapView:
    return CapView(
        type=cap.type.word,
        live=usage.get((class_id, cap.type), 0),
        sockets=cap.sockets or None,
        requests_per_minute=cap.requests_per_minute or None,
    )


def membership(state: State, cgroup: str) -> Membership:
    """Which class a cgroup (an absolute path) is in, and by which classified ancestor."""
    path = os.path.relpath(cgroup, state.attached_to)
    name = None
    if not path.startswith(".."):
        name = state.cgroups.class_name_of("" if path == "." else path, state.engine.classes)
    if name is None:
        return Membership(class_="unclassified")
    policy = next(each for each in state.engine.classes.values() if each.name == name)
    by = max(
        (m for m in state.cgroups.members[name] if path == m or path.startswith(f"{m}/")),
        key=len,
        default="",
    )
    default: AddressType = policy.default
    return Membership(
        class_=name,
        default=default.word if default else None,
        cgroup=str(state.attached_to / by) if by else "",
    )


def _family(family: Family) -> Literal["ipv4", "ipv6"]:
    return "ipv6" if family is Family.IPV6 else "ipv4"
