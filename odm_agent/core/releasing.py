"""When a prefix goes back to the network: no socket has used it for as long as was configured.

Whether one does is looked at with everything else, and once more when the time is over.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.events import Offered
from odm_agent.core.handover import HANDOVER, Old
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime, Phase

#: What nobody uses is kept for at least so long: who has waited for it needs some time to use it.
LEAST_S: Final = 30.0

#: Since when no socket was seen to use a prefix (boot-time seconds), by its id.
Idle = Mapping[int, float]


def watched(leases: Mapping[int, Lease]) -> frozenset[int]:
    """The prefixes that go back when they are not used."""
    return frozenset(id_ for id_, lease in leases.items() if _release_s(lease) is not None)


def seen(idle: Idle, offered: Offered, now_s: float) -> Idle:
    """Since when no socket uses what is `watched`, after a look."""
    if offered.idle is None:
        return idle
    return {id_: idle.get(id_, now_s) for id_ in offered.idle}


def deadline(idle: Idle, leases: Mapping[int, Lease]) -> float:
    """When the first may go back (boot-time seconds)."""
    return min((_due_s(idle, leases, id_) for id_ in idle), default=NEVER)


def due(idle: Idle, leases: Mapping[int, Lease], now_s: float) -> frozenset[int]:
    """The prefixes that were just seen to be idle, and have been so for long enough."""
    return frozenset(id_ for id_ in idle if _due_s(idle, leases, id_) <= now_s)


def returning(lease: Lease, now_s: float) -> Lease:
    """It is given to no socket any more, and goes when none has it."""
    lifetime = Lifetime(min(lease.lifetime.preferred_until_s, now_s), now_s)
    return replace(lease, grant=replace(lease.grant, lifetime=lifetime), returning=True)


def _due_s(idle: Idle, leases: Mapping[int, Lease], id_: int) -> float:
    lease = leases.get(id_)
    release_s = None if lease is None else _release_s(lease)
    return NEVER if release_s is None else idle[id_] + max(release_s, LEAST_S)


def _release_s(lease: Lease) -> float | None:
    """For how long no socket must have used it (seconds); None: it does not go back.

    What waits for its network does not: it could not be told. One that was kept for its sockets
    alone goes with the last of them, whatever else is configured.
    """
    prefix = lease.grant.prefix
    if prefix.is_unserved and lease.phase is not Phase.LINGERING:
        return 0.0 if HANDOVER[prefix.type] is Old.IN_USE else None
    return lease.grant.release_s if prefix.attached and lease.phase is Phase.CURRENT else None
