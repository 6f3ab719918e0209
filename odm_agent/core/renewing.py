"""New addresses for sockets that ask for one, though there is one (`ODM_FRESH`).

Where hooks can make an address for each such socket, the prefix is *opened* for that: all of it
becomes local, by a route. Elsewhere others take the place of the current ones, for all who ask
within a time; what is made is bounded, since who asks is somebody else's process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from odm_agent.core import rotation
from odm_agent.core.clock import NEVER
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Phase
from odm_agent.core.model import OWN_AT_MOST, AddressType, Family, Placement

#: So far apart are two renewals of a prefix: who asks in between shares what the first one made.
APART_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """Others take the place of a prefix's addresses since then (boot-time seconds).

    `wanted`: and once more, when that may be.
    """

    since_s: float
    wanted: bool = False

    @property
    def until_s(self) -> float:
        """Until when what it has made counts as new, and no other one begins."""
        return self.since_s + APART_S


#: By the ids of prefixes.
Renewals = Mapping[int, Renewal]


def can_open(lease: Lease) -> bool:
    """Whether sockets can have addresses of their own there, which end with the prefix only."""
    prefix = lease.grant.prefix
    return (
        prefix.family is Family.IPV6
        and prefix.placement is Placement.DELEGATED
        and prefix.network.prefixlen <= OWN_AT_MOST
        and prefix.type is not AddressType.FIXED
        and not prefix.terms.end_in_kernel
        and not prefix.by_class
    )


def replaceable(lease: Lease) -> frozenset[int]:
    """The current addresses (the ids of their leases) of which others can take the place.

    None, if former ones that sockets may have would have to go for that; nor where each class has
    an address of its own, since who asks is one of them.
    """
    prefix = lease.grant.prefix
    if prefix.one_lease or prefix.by_class or prefix.type is AddressType.FIXED:
        return frozenset()
    current = frozenset(each.id for each in lease.addresses if each.phase is Phase.CURRENT)
    lingering = sum(each.phase is Phase.LINGERING for each in lease.addresses)
    return current if lingering + len(current) <= prefix.terms.linger else frozenset()


def renewed(
    lease: Lease, renewal: Renewal | None, ids: frozenset[int], now_s: float, *, again: bool
) -> tuple[Lease, Renewal]:
    """Others in the place of these addresses; `again`: in the place of new ones, too, when that may
    be.
    """
    if renewal is not None and is_under_way(lease, renewal):
        return lease, renewal
    if renewal is not None and now_s < renewal.until_s:
        return lease, replace(renewal, wanted=renewal.wanted or again)
    return rotation.rotated(lease, ids, now_s), Renewal(now_s)


def at(
    leases: Mapping[int, Lease], renewals: Renewals, now_s: float
) -> tuple[dict[int, Lease], Renewals]:
    """What was wanted and may be now."""
    due = [id_ for id_, each in renewals.items() if each.wanted and each.until_s <= now_s]
    if not due:
        return dict(leases), renewals
    changed, after = dict(leases), dict(renewals)
    for id_ in due:
        lease = leases.get(id_)
        if lease is None:
            del after[id_]
            continue
        changed[id_], after[id_] = renewed(lease, None, replaceable(lease), now_s, again=False)
    return changed, after


def deadline(renewals: Renewals) -> float:
    """When the first that is wanted may be (boot-time seconds)."""
    return min((each.until_s for each in renewals.values() if each.wanted), default=NEVER)


def is_under_way(lease: Lease, renewal: Renewal | None) -> bool:
    """Whether addresses are still to be replaced, or are to be once more."""
    if renewal is None:
        return False
    return renewal.wanted or any(
        each.phase is Phase.CURRENT and each.rotate_at_s <= renewal.since_s
        for each in lease.addresses
    )


def new_until_s(lease: Lease, renewal: Renewal | None) -> float:
    """Until when the current addresses count as new (boot-time seconds); 0: they don't."""
    if renewal is None or is_under_way(lease, replace(renewal, wanted=False)):
        return 0.0
    return renewal.until_s


def in_order(leases: Iterable[Lease]) -> list[Lease]:
    """The best first."""
    return sorted(leases, key=lambda e: (-e.grant.prefix.preference, e.grant.prefix.order))
