"""The part of the machine that decides when to look at kernel, maps and cgroups again."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Final

from odm_agent.core.clock import Moment
from odm_agent.core.effects import Conclude, Effect, Look, Probe
from odm_agent.core.events import Dirty, Interrupted, Offered, Probed
from odm_agent.core.host import Address

#: A burst of events is one: what follows within this time is taken along.
BURST_S: Final = 0.01
#: Nothing should ever need it: a look at everything even if no event came.
RESYNC_S: Final = 60.0
#: The same after something could not be done: nobody says when a map has room again.
RETRY_S: Final = 2.0
#: How often that is doubled at most while the agent fails by a fault of its own.
MOST_DOUBLINGS: Final = 5
#: So many looks in a row are interrupted at most: what comes from networks can't keep one from its
#: end. A handover brings an answer for each type.
MOST_INTERRUPTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Looking:
    """What is to be looked at, when, and which conflict checks are under way."""

    due_s: float
    resync_s: float
    dirty: Dirty
    #: How many looks in a row failed by a fault of the agent itself.
    faults: int = 0
    probing: frozenset[Address] = frozenset()
    #: How many looks in a row were interrupted; and whether one of them was to tell what is in use.
    interruptions: int = 0
    asks: bool = False

    def touched(self, what: Dirty, now: Moment, within_s: float = BURST_S) -> "Looking":
        """It may have changed: look at it soon."""
        return replace(self, dirty=self.dirty | what, due_s=min(self.due_s, now.boot_s + within_s))

    def at(
        self,
        ended: Set[int],
        lingering: Set[int],
        watched: Set[int],
        turned: bool,
        now: Moment,
    ) -> tuple["Looking", list[Effect]]:
        """Look, if it is time. Nothing is due then until `offered`.

        `lingering` are address leases, `watched` prefixes: whether a socket uses them is asked once
        a minute only, and where the table has `turned` to others, or a prefix is due to go back, as
        it takes a look at all sockets.
        """
        if now.boot_s < self.due_s:
            return self, []
        resync = now.boot_s >= self.resync_s
        asked = resync or turned or self.asks
        dirty = Dirty.ALL if resync else self.dirty
        resync_s = now.boot_s + RESYNC_S if resync else self.resync_s
        looking = replace(self, due_s=resync_s, resync_s=resync_s, dirty=Dirty(0), asks=False)
        return looking, [
            Look(
                dirty,
                frozenset(ended),
                frozenset(lingering) if asked else frozenset(),
                frozenset(watched) if asked else frozenset(),
                resync,
                whole=self.interruptions >= MOST_INTERRUPTIONS,
            )
        ]

    def interrupted(self, interrupted: Interrupted, now: Moment) -> "Looking":
        """A look was broken off: it is made again as soon as sources have what is for them."""
        return replace(
            self.touched(interrupted.dirty, now, 0.0),
            interruptions=self.interruptions + 1,
            asks=self.asks or interrupted.asked,
        )

    def offered(self, offered: Offered, now: Moment) -> tuple["Looking", list[Effect]]:
        """A look has ended: check the addresses that wait for it, and try again what failed.

        The more often the agent has failed by its own fault, the later; at rest, at `resync_s`.
        """
        faults = min(self.faults + 1, MOST_DOUBLINGS + 1) if offered.own_fault else 0
        looking = replace(
            self, faults=faults, probing=self.probing | offered.to_probe, interruptions=0
        )
        if not offered.finished:
            retry_s = min(RETRY_S * (1 << max(faults - 1, 0)), RESYNC_S)
            looking = looking.touched(Dirty.ALL, now, retry_s)
        if offered.behind:
            looking = looking.touched(Dirty.CGROUPS, now)
        new = sorted(offered.to_probe - self.probing, key=lambda each: int(each.address))
        return looking, [Probe(address) for address in new]

    def probed(self, probed: Probed, now: Moment) -> tuple["Looking", list[Effect]]:
        """A conflict check has ended. Where it could not be made, an event will say that it can."""
        looking = replace(self, probing=self.probing - {probed.address})
        if probed.in_use is None:
            return looking, []
        looking = looking.touched(Dirty.KERNEL, now)
        return looking, [Conclude(probed.address, probed.in_use)]
