"""How new sockets are served while another graceful-replacement prefix follows one.

Who begins to talk takes a deprecated address as long as there is no other one (RFC 4862, section
5.5.4). So the old prefix *stands in*: sockets are given it after all others, until another one of
the type serves, or for some seconds at most. What nobody can say yet is whether the next network
leads there; until it does, packets wait (`TypedPrefix.waits`).
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Final

from odm_agent.core import rotation
from odm_agent.core.clock import NEVER
from odm_agent.core.handover import HANDOVER, Old
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime, Phase

#: So long the next network is waited for, from the loss of the link on (seconds): what an
#: interface takes to be ready there, and a message that is sent again (RFC 8415, section 18.2.12).
NETWORK_S: Final = 6.0
#: So long its successor is waited for: who asks a network for one is left without it then, too.
SUCCESSOR_S: Final = 10.0

#: Until when prefixes stand in (boot-time seconds), by their ids.
StandingIn = Mapping[int, float]


def can(lease: Lease, now_s: float) -> bool:
    """Whether sockets are given a prefix now, and may be though it is to go."""
    return (
        HANDOVER[lease.grant.prefix.type] is Old.GRACE
        and not lease.grant.is_configured
        and lease.phase is Phase.CURRENT
        and lease.lifetime.valid_until_s > now_s
    )


def until(lease: Lease, known_s: float | None, now_s: float) -> float | None:
    """Until when a prefix that is preferred no more stands in (boot-time seconds); None: it does
    not. `known_s`: until when it was to, if it does already.
    """
    if not can(lease, now_s) or (known_s is not None and known_s <= now_s):
        return None
    return now_s + SUCCESSOR_S if known_s is None else known_s


def prolonged(lease: Lease, until_s: float) -> Lease:
    """A lease of which sockets are given addresses until then, if it is valid so long."""
    valid_until_s = lease.lifetime.valid_until_s
    lifetime = Lifetime(min(until_s, valid_until_s), valid_until_s)
    return replace(lease, grant=replace(lease.grant, lifetime=lifetime))


def ended(lease: Lease, now_s: float) -> Lease:
    """A lease whose prefix stands in no more. One that waits for a network may serve there yet."""
    if not lease.grant.prefix.attached:
        return lease
    return rotation.bounded(prolonged(lease, now_s), Lifetime(now_s, NEVER))


def succeeded(standing: StandingIn, leases: Mapping[int, Lease], ready: Set[int]) -> frozenset[int]:
    """Those in whose place another one of their type serves; `ready` as in `Offered`."""
    serving = {
        each.grant.want for id_, each in leases.items() if id_ in ready and id_ not in standing
    }
    return frozenset(id_ for id_ in standing if id_ in leases and leases[id_].grant.want in serving)


def over(standing: StandingIn, leases: Mapping[int, Lease], now_s: float) -> frozenset[int]:
    """Those that stand in no more, since nothing came, or they are gone."""
    return frozenset(
        id_
        for id_, until_s in standing.items()
        if until_s <= now_s or id_ not in leases or leases[id_].phase is Phase.LINGERING
    )


def deadline(standing: StandingIn) -> float:
    """When the first one stands in no more (boot-time seconds)."""
    return min(standing.values(), default=NEVER)
