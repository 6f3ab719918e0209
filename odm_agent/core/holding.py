"""The part of the machine that holds leases, by the ids of their prefixes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import Effect, Project, Record, Refuse
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime, Phase
from odm_agent.core.model import TypedPrefix


@dataclass(frozen=True, slots=True)
class Holding:
    """The leases; `changed`: the table doesn't know them as they are."""

    leases: Mapping[int, Lease] = field(default_factory=dict)
    changed: bool = False

    def with_grant(self, grant: Grant, now: Moment) -> tuple["Holding", list[Effect]]:
        """Hold a grant, or hold it for longer. Another prefix under its key takes its place.

        What comes from elsewhere than the configuration is refused where it overlaps another.
        """
        id_, leases = grant.prefix.id, dict(self.leases)
        effects: list[Effect] = []
        for other, held in self.leases.items():
            if other == id_:
                continue
            if held.grant.key == grant.key:
                _end(leases, other, now, effects)
            elif not (grant.is_configured and held.grant.is_configured) and _overlap(
                grant, held.grant
            ):
                if not grant.is_configured:
                    cause = f"{grant.prefix.network} overlaps {held.grant.prefix.network}"
                    return self, [Refuse(grant.key, cause)]
                del leases[other]  # the configuration has the last word
                effects.append(Record(other, None))
        current = id_ in leases and leases[id_].phase is Phase.CURRENT
        leases[id_] = Lease(grant, Phase.CURRENT if current else Phase.PROBING)
        if not grant.is_configured:
            effects.append(Record(id_, leases[id_]))
        return Holding(leases, changed=True), effects

    def without_grant(self, key: GrantKey, now: Moment) -> tuple["Holding", list[Effect]]:
        """A source took back what it gave under `key`."""
        leases, effects = dict(self.leases), list[Effect]()
        for id_, held in self.leases.items():
            if held.grant.key == key:
                _end(leases, id_, now, effects)
        return Holding(leases, changed=True), effects

    def at(self, now: Moment) -> tuple["Holding", list[Effect]]:
        """What time has made of it; the table is told of what is another than it knows."""
        aged = {
            id_: replace(lease, phase=Phase.LINGERING) if lease.next_s <= now.boot_s else lease
            for id_, lease in self.leases.items()
        }
        if aged == self.leases and not self.changed:
            return self, []
        holding = Holding(aged)
        return holding, [Project(holding.prefixes())]

    def offered(
        self, ready: frozenset[int], unused: frozenset[int], now: Moment
    ) -> tuple["Holding", list[Effect]]:
        """Sockets are given addresses of `ready`; what is over and `unused` is let go."""
        gone = {id_ for id_ in self.over(now) if id_ in unused}
        leases = {
            id_: replace(lease, phase=Phase.CURRENT)
            if id_ in ready and lease.phase is Phase.PROBING
            else lease
            for id_, lease in self.leases.items()
            if id_ not in gone
        }
        forgotten: list[Effect] = [Record(id_, None) for id_ in sorted(gone)]
        return Holding(leases, self.changed or bool(gone)), forgotten

    def over(self, now: Moment) -> frozenset[int]:
        """The prefixes that go when no socket uses them any more."""
        return frozenset(id_ for id_, each in self.leases.items() if each.is_over(now.boot_s))

    def prefixes(self) -> tuple[TypedPrefix, ...]:
        """What the typed prefix table consists of."""
        return tuple(
            replace(lease.grant.prefix, lingering=lease.phase is Phase.LINGERING)
            for lease in self.leases.values()
        )

    def wants(self) -> frozenset[Want]:
        """What sockets are given now, or will be when its addresses are ready."""
        return frozenset(
            lease.grant.want for lease in self.leases.values() if lease.phase is not Phase.LINGERING
        )

    def deadline(self) -> float:
        """When time changes something, or the table is to be told (boot-time seconds)."""
        if self.changed:
            return 0.0
        return min((lease.next_s for lease in self.leases.values()), default=NEVER)


def _overlap(one: Grant, other: Grant) -> bool:
    return any(
        a.version == b.version and a.overlaps(b)
        for a in one.prefix.spans
        for b in other.prefix.spans
    )


def _end(leases: dict[int, Lease], id_: int, now: Moment, effects: list[Effect]) -> None:
    """A lease is over from now on: a configured one is gone, others go when they are unused."""
    lease = leases[id_]
    if lease.grant.is_configured:
        del leases[id_]
    elif lease.lifetime.valid_until_s > now.boot_s:
        until = Lifetime(min(lease.lifetime.preferred_until_s, now.boot_s), now.boot_s)
        leases[id_] = replace(lease, grant=replace(lease.grant, lifetime=until))
        effects.append(Record(id_, leases[id_]))
