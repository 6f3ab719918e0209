"""The state as the shapes that the control socket answers with."""

import os
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Literal

from odm_agent import __version__
from odm_agent.agent import sockets
from odm_agent.agent.delegation_views import delegations
from odm_agent.agent.standings import Standing, standings
from odm_agent.agent.state import State
from odm_agent.agent.status import address_states, alarms, offered, prefix_state
from odm_agent.control.answers import (
    AddressView,
    CapView,
    ClassView,
    LimitView,
    Membership,
    PrefixView,
    Status,
    WanderView,
)
from odm_agent.core.model import UNCLASSIFIED, AddressType, Cap, Family
from odm_agent.core.projection import PrefixRow
from odm_agent.datapath import abi, catalogue
from odm_agent.kernel import timer
from odm_agent.kernel.cgroups import path_of
from odm_agent.prefixes.mirror import next_hop
from odm_agent.prefixes.table import Row
from odm_agent.text import printable


def status(state: State) -> Status:
    """`odm-agent status`."""
    engine = state.engine
    pin_dir = state.config.agent.pin_dir
    at_s = timer.now().boot_s
    attached = cache(state.attachments)  # each look is dozens of system calls
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
        programs=len(catalogue.CGROUP) - len(attached().absent),
        prefixes=len(engine.table.rows),
        addresses=sum(len(row.pool) for row in offered(state).values()),
        classes=len(engine.classes) - 1,
        alarms=alarms(state, attached),
        wandering=[_wandering(each, at_s) for each in standings(engine).values()],
        delegations=delegations(state.delegations, at_s),
    )


def _wandering(standing: Standing, at_s: float) -> WanderView:
    names = [row.prefix.name for row in standing.rows]
    return WanderView(
        type=standing.wanderers.type.word,
        family=_family(standing.wanderers.family),
        preference=standing.wanderers.preference,
        first=names[0] if names else None,
        behind=names[1:],
        seconds_left=max(0.0, standing.until_s - at_s),
    )


def prefixes(state: State) -> list[PrefixView]:
    """`odm-agent prefixes`."""
    handed_out = offered(state)
    return [_prefix(state, row, handed_out) for row in state.engine.table]


def _prefix(state: State, row: Row, handed_out: Mapping[int, PrefixRow]) -> PrefixView:
    prefix, numbers = row.prefix, state.engine.numbers
    ids = (prefix.id, *(seat.number for seat in prefix.seats))
    phase, reason = prefix_state(state, row)
    gateway = next_hop(prefix, state.engine.host)
    return PrefixView(
        id=prefix.id,
        name=prefix.name,
        type=prefix.type.word,
        prefix=None if prefix.managed else str(prefix.network),
        family=_family(prefix.family),
        interface=prefix.interface,
        gateway=str(gateway) if gateway is not None else None,
        placement=prefix.placement.value,
        shared=prefix.shared,
        pool=prefix.pool,
        state=phase,
        reason=reason,
        addresses=sum(len(handed_out[each].pool) for each in ids if each in handed_out),
        table=numbers.table(prefix.id),
        mark=0 if prefix.by_class else numbers.mark(prefix.mark_id),
        by_class=prefix.by_class,
    )


def addresses(state: State) -> list[AddressView]:
    """`odm-agent addresses`."""
    live = sockets.count_by_address(state, sockets.typed_sockets(state))
    return [
        AddressView(
            address=str(address),
            prefix=row.prefix.name,
            type=row.prefix.type.word,
            family=_family(row.prefix.family),
            interface=row.holder,
            state=stage,
            sockets=live.get(address, 0),
            class_=row.class_of(address) or None,
        )
        for row, address, stage in address_states(state)
    ]


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
            cgroups=[
                printable(str(state.attached_to / path))
                for path in state.cgroups.members_of(policy.name)
            ],
            sockets=live[policy.id],
            refuse=sorted(kind.value for kind in policy.refuse),
            caps=[_cap(policy.id, cap, usage) for cap in sorted(policy.caps, key=lambda c: c.type)],
            lifetimes=[
                LimitView(
                    type=limit.type.word,
                    preferred_seconds=limit.longest_s or None,
                    budget_bytes=limit.bytes or None,
                )
                for limit in sorted(policy.limits, key=lambda each: each.type)
            ],
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


def membership(state: State, cgroup_id: int) -> Membership:
    """Which class a cgroup is in, and by which classified ancestor. Raises KernelError."""
    found = path_of(state.attached_to, cgroup_id)
    path = str(found.relative_to(state.attached_to)).removeprefix(".") if found else None
    name = None if path is None else state.cgroups.class_name_of(path, state.engine.classes)
    if path is None or name is None:
        return Membership(class_="unclassified")
    policy = next(each for each in state.engine.classes.values() if each.name == name)
    by = max(
        (m for m in state.cgroups.members_of(name) if path == m or path.startswith(f"{m}/")),
        key=len,
        default="",
    )
    default: AddressType = policy.default
    return Membership(
        class_=name,
        default=default.word if default else None,
        cgroup=printable(str(state.attached_to / by)) if by else "",
    )


def _family(family: Family) -> Literal["ipv4", "ipv6"]:
    return "ipv6" if family is Family.IPV6 else "ipv4"
