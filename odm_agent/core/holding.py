"""The part of the machine that holds leases, by the ids of their prefixes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from odm_agent.core import releasing, renewing, rotation, standing_in, wandering
from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import Effect, EndSockets, GiveBack, Project, Record, Refuse
from odm_agent.core.events import Offered
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.handover import HANDOVER, Old, waits
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import OVER, Cause, Lifetime, Phase
from odm_agent.core.model import TypedPrefix
from odm_agent.core.standing_in import NETWORK_S, StandingIn
from odm_agent.core.wandering import Periods


@dataclass(frozen=True, slots=True)
class Holding:
    """The leases; `changed`: the table doesn't know them as they are."""

    leases: Mapping[int, Lease] = field(default_factory=dict)
    changed: bool = False
    #: From which id on the next lease of an address gets one.
    next_id: int = 1
    #: Which period the table knows it is, for prefixes that wander.
    periods: Periods = field(default_factory=dict)
    #: Which prefixes no socket has used, and since when.
    idle: releasing.Idle = field(default_factory=dict)
    #: Which prefixes serve no socket, as the last look found it (`Offered.stalled`).
    stalled: frozenset[int] = frozenset()
    #: Of which prefixes sockets have asked for new addresses.
    renewals: renewing.Renewals = field(default_factory=dict)
    #: Which prefixes serve new sockets until others do, and how long at most.
    standing_in: StandingIn = field(default_factory=dict)

    def with_grant(self, grant: Grant, now: Moment) -> tuple["Holding", list[Effect]]:
        """Hold a grant, or hold it for longer. Another prefix under its key takes its place.

        What comes from elsewhere than the configuration is refused where it overlaps another.
        """
        id_, leases = grant.prefix.id, dict(self.leases)
        standing = dict(self.standing_in)
        effects: list[Effect] = []
        for other, held in self.leases.items():
            if other == id_:
                continue
            if held.grant.key == grant.key:
                over = HANDOVER[held.grant.prefix.type] is Old.OVER
                _end(leases, other, now, effects, at_once=over, handover=True)
            elif not (grant.is_configured and held.grant.is_configured) and _overlap(
                grant, held.grant
            ):
                if not grant.is_configured:
                    cause = f"{grant.prefix.network} overlaps {held.grant.prefix.network}"
                    return self, [Refuse(grant.key, cause)]
                del leases[other]  # the configuration has the last word
                effects.append(Record(other, None))
        before = leases.get(id_)
        current = before is not None and before.phase is Phase.CURRENT
        phase = Phase.CURRENT if current else Phase.PROBING
        ids = Ids(self.next_id, leases.values())
        ends = grant.lifetime is not None and grant.lifetime.preferred_until_s <= now.boot_s
        lease = replace(
            before or Lease(grant), grant=grant, phase=phase, returning=False, handover=ends
        )
        if not ends or (before is not None and not before.grant.prefix.attached):
            standing.pop(id_, None)  # its network has answered
        leases[id_] = lease = rotation.begun(lease, now.boot_s, ids)
        if (not grant.is_configured or _has_state(lease)) and lease != before:
            effects.append(Record(id_, lease))
        return replace(
            self, leases=leases, changed=True, next_id=ids.next, standing_in=standing
        ), effects

    def without_grant(
        self, key: GrantKey, now: Moment, *, at_once: bool = False
    ) -> tuple["Holding", list[Effect]]:
        """A source took back what it gave under `key`; `at_once` as in `Withdrawn`."""
        leases, effects = dict(self.leases), list[Effect]()
        for id_, held in self.leases.items():
            if held.grant.key == key:
                _end(leases, id_, now, effects, at_once=at_once)
        return replace(self, leases=leases, changed=True), effects

    def without_confirmation(
        self, key: GrantKey, now: Moment, *, attached: bool = True
    ) -> tuple["Holding", list[Effect]]:
        """Whether the present network serves what is held under `key` is not known any more. Not
        `attached`: nothing leaves from it before that is known, also if another agent goes on.
        """
        leases, effects = dict(self.leases), list[Effect]()
        standing = dict(self.standing_in)
        for id_, held in self.leases.items():
            if held.grant.key == key:
                here = held.grant.prefix.attached and attached
                leases[id_] = lease = _told_of(held, unconfirmed=True, attached=here)
                if held.grant.prefix.attached and not here and standing_in.can(held, now.boot_s):
                    standing[id_] = now.boot_s + NETWORK_S
                if lease != held and not attached:
                    effects.append(Record(id_, lease))
        return replace(self, leases=leases, changed=True, standing_in=standing), effects

    def unserved(self, key: GrantKey, now: Moment) -> tuple["Holding", list[Effect], list[Want]]:
        """The present network does not serve what is held under `key`; what is to be requested in
        its place.
        """
        leases, effects, wants = dict(self.leases), list[Effect](), list[Want]()
        for id_, held in self.leases.items():
            if held.grant.key != key or held.phase is Phase.LINGERING:
                continue
            leases[id_] = lease = _told_of(held, unconfirmed=False, attached=False)
            if waits(lease.grant.prefix.type):
                effects.append(Record(id_, lease))
                continue
            if HANDOVER[lease.grant.prefix.type] is Old.GRACE and id_ not in self.idle:
                wants.append(lease.grant.want)
            leases[id_] = replace(lease, phase=Phase.LINGERING)
            _end(leases, id_, now, effects, at_once=True, handover=True)
        return replace(self, leases=leases, changed=True), effects, wants

    def renewed(
        self, want: Want, now: Moment, *, on_net: bool, again: bool
    ) -> tuple["Holding", list[Effect], str | None]:
        """A socket wants another address than there are; why there can be none, if so.

        `on_net`: of what the present network serves; `again`: also than those that were made a
        moment ago.
        """
        serving = [
            each
            for each in renewing.in_order(self._serving(on_net=on_net))
            if each.grant.want == want
        ]
        leases, renewals = dict(self.leases), dict(self.renewals)
        if can_open := [each for each in serving if renewing.can_open(each)]:
            for each in can_open:
                leases[each.grant.prefix.id] = replace(each, opened=True)
        else:
            found = ((each, renewing.replaceable(each)) for each in serving)
            lease, ids = next(((each, ids) for each, ids in found if ids), (None, frozenset[int]()))
            if lease is None:
                cause = f"no prefix for {want[0].word} can give another IPv{want[1]} address"
                return self, [], cause
            id_ = lease.grant.prefix.id
            leases[id_], renewals[id_] = renewing.renewed(
                lease, renewals.get(id_), ids, now.boot_s, again=again
            )
        effects: list[Effect] = [
            Record(id_, lease) for id_, lease in leases.items() if lease != self.leases[id_]
        ]
        holding = replace(
            self, leases=leases, renewals=renewals, changed=self.changed or bool(effects)
        )
        return holding, effects, None

    def renewing(self, own: Set[int]) -> frozenset[Want]:
        """Of what new addresses are being made; `own` as in `Offered`."""
        opened, made = set[Want](), set[Want]()
        for id_, lease in self.leases.items():
            if lease.phase is Phase.LINGERING:
                continue
            if lease.opened:
                (made if id_ in own else opened).add(lease.grant.want)
            elif renewing.is_under_way(lease, self.renewals.get(id_)):
                opened.add(lease.grant.want)
        return frozenset(opened - made)

    def at(self, now: Moment) -> tuple["Holding", list[Effect]]:
        """What time has made of it; the table is told of what is another than it knows."""
        ids = Ids(self.next_id, self.leases.values())
        turned: dict[int, Lease] = {}
        effects: list[Effect] = []
        causes: dict[int, Cause] = {}
        leases, renewals = renewing.at(self.leases, self.renewals, now.boot_s)
        standing = dict(self.standing_in)
        for id_, lease in leases.items():
            if lease.next_s <= now.boot_s:
                until_s = standing_in.until(lease, standing.get(id_), now.boot_s)
                if until_s is None:
                    lease = replace(lease, phase=Phase.LINGERING)
                else:
                    standing[id_] = until_s
                    lease = standing_in.prolonged(lease, until_s)
                    lease = rotation.begun(lease, now.boot_s, ids)
            turn = rotation.at(lease, now.boot_s, ids)
            turned[id_] = turn.lease
            causes |= turn.causes
            effects += (EndSockets(id_, number, lease.handover) for number in turn.retired)
            if turn.lease != self.leases[id_]:
                effects.append(Record(id_, turn.lease))
        periods = wandering.periods_at(
            (each.grant.prefix for each in self.leases.values()), now.boot_s
        )
        for id_ in standing_in.over(standing, turned, now.boot_s):
            del standing[id_]
        before = (self.leases, self.periods, self.standing_in)
        if (turned, periods, standing) == before and not self.changed:
            return self, []
        holding = replace(
            self,
            leases=turned,
            changed=False,
            next_id=ids.next,
            periods=periods,
            renewals=renewals,
            standing_in=standing,
        )
        return holding, [*effects, Project(holding.prefixes(), causes)]

    def offered(self, offered: Offered, now: Moment) -> tuple["Holding", list[Effect]]:
        """Sockets are given addresses of what is ready; what is over and unused is let go."""
        gone = {id_ for id_ in self.over(now) if id_ in offered.unused}
        effects: list[Effect] = [Record(id_, None) for id_ in sorted(gone)]
        effects += [
            GiveBack(self.leases[id_].grant.key)
            for id_ in sorted(gone)
            if self.leases[id_].returning
        ]
        idle = releasing.seen(self.idle, offered, now.boot_s)
        returning = releasing.due(idle, self.leases, now.boot_s) if idle is not self.idle else ()
        leases: dict[int, Lease] = {}
        succeeded = standing_in.succeeded(self.standing_in, self.leases, offered.ready)
        changed = self.changed or bool(gone or succeeded)
        for id_, before in self.leases.items():
            if id_ in gone:
                continue
            lease = before
            if id_ in offered.ready and lease.phase is Phase.PROBING:
                lease = replace(lease, phase=Phase.CURRENT)
            aged = rotation.ready(lease, offered.ready_leases)
            aged = rotation.unused(aged, offered.unused_leases, now.boot_s)
            if id_ in returning:
                aged = releasing.returning(aged, now.boot_s)
            if id_ in succeeded:
                aged = standing_in.ended(aged, now.boot_s)
            if aged != lease:
                changed = True
                effects.append(Record(id_, aged))
            leases[id_] = aged
        return replace(
            self,
            leases=leases,
            changed=changed,
            idle=idle,
            stalled=offered.stalled,
            standing_in={**self.standing_in, **dict.fromkeys(succeeded, now.boot_s)},
        ), effects

    def each(self, change: Callable[[Lease], Lease]) -> tuple["Holding", list[Effect]]:
        """Leases with changes of their addresses, which are written down."""
        leases = {id_: change(lease) for id_, lease in self.leases.items()}
        effects: list[Effect] = [
            Record(id_, lease) for id_, lease in leases.items() if lease != self.leases[id_]
        ]
        return replace(self, leases=leases), effects

    def lingering(self) -> frozenset[int]:
        """The ids of the leases of addresses that go when no socket uses them any more."""
        return frozenset(
            each.id
            for lease in self.leases.values()
            for each in lease.addresses
            if each.phase is Phase.LINGERING
        )

    def over(self, now: Moment) -> frozenset[int]:
        """The prefixes that go when no socket uses them any more."""
        return frozenset(id_ for id_, each in self.leases.items() if each.is_over(now.boot_s))

    def watched(self) -> frozenset[int]:
        """The prefixes that go back to the network when no socket uses them."""
        return releasing.watched(self.leases)

    def idle_deadline(self) -> float:
        """When one may go back, if still no socket uses it (boot-time seconds)."""
        return releasing.deadline(self.idle, self.leases)

    def prefixes(self) -> tuple[TypedPrefix, ...]:
        """What the typed prefix table consists of."""
        return tuple(
            replace(
                wandering.in_period(lease.grant.prefix, self.periods),
                lingering=lease.phase is Phase.LINGERING,
                opened=lease.opened,
                new_until_s=renewing.new_until_s(lease, self.renewals.get(id_)),
                addresses=lease.addresses,
                resting=lease.resting_numbers,
                ends=lease.grant.lifetime is not None,
                stands_in=id_ in self.standing_in,
            )
            for id_, lease in self.leases.items()
        )

    def wants(self, *, on_net: bool = False) -> frozenset[Want]:
        """What sockets are given now, or will be when its addresses are ready.

        What is held by an uplink that is down is not among these: others may be asked for it.
        `on_net`: of what the network serves to which the host is attached now.
        """
        return frozenset(each.grant.want for each in self._serving(on_net=on_net))

    def stalled_wants(self) -> frozenset[Want]:
        """What is held, but serves no socket before an uplink comes back."""
        return frozenset(each.grant.want for each in self._current()) - self.wants()

    def _current(self) -> Iterator[Lease]:
        return (each for each in self.leases.values() if each.phase is not Phase.LINGERING)

    def _serving(self, *, on_net: bool) -> Iterator[Lease]:
        for each in self._current():
            prefix = each.grant.prefix
            if prefix.id not in self.stalled and (prefix.on_net or not on_net):
                yield each

    def deadline(self) -> float:
        """When time changes something, or the table is to be told (boot-time seconds)."""
        if self.changed:
            return 0.0
        due = (min(each.next_s, rotation.deadline(each)) for each in self.leases.values())
        return min(
            wandering.next_s(self.periods),
            self.idle_deadline(),
            renewing.deadline(self.renewals),
            standing_in.deadline(self.standing_in),
            min(due, default=NEVER),
        )


class Ids:
    """Gives ids of leases of addresses: the next one that is free, so that none returns soon."""

    def __init__(self, next_id: int, leases: Iterable[Lease]) -> None:
        self.next = next_id
        self._leases = leases
        self._taken: set[int] | None = None

    def __call__(self) -> int | None:
        """An id that no lease has; None: all are taken."""
        if self._taken is None:  # looked at only where there is something to give
            self._taken = {each.id for lease in self._leases for each in lease.addresses}
        if len(self._taken) >= OVER - 1:
            return None
        while self.next in self._taken or not 0 < self.next < OVER:
            self.next = self.next + 1 if self.next < OVER else 1
        self._taken.add(self.next)
        return self.next


def _has_state(lease: Lease) -> bool:
    """Whether the next agent must know more of a configured prefix than its configuration says."""
    return bool(lease.addresses) or lease.opened


def _told_of(lease: Lease, *, unconfirmed: bool, attached: bool) -> Lease:
    """A lease of whose prefix the present network has said that, or nothing."""
    prefix = replace(lease.grant.prefix, unconfirmed=unconfirmed, attached=attached)
    return replace(lease, grant=replace(lease.grant, prefix=prefix))


def _overlap(one: Grant, other: Grant) -> bool:
    return any(
        a.version == b.version and a.overlaps(b)
        for a in one.prefix.spans
        for b in other.prefix.spans
    )


def _end(
    leases: dict[int, Lease],
    id_: int,
    now: Moment,
    effects: list[Effect],
    *,
    at_once: bool = False,
    handover: bool = False,
) -> None:
    """A lease is over from now on: a configured one is gone, others go when they are unused.

    Unless it is over `at_once`, sockets that have its addresses go on with them, for as long as was
    promised at most. `handover`: as in `Lease`.
    """
    lease = leases[id_]
    if lease.grant.is_configured:
        del leases[id_]
        if _has_state(lease):
            effects.append(Record(id_, None))
        return
    over = replace(lease, handover=lease.handover or handover)
    if lease.lifetime.valid_until_s > now.boot_s:
        until = Lifetime(min(lease.lifetime.preferred_until_s, now.boot_s), now.boot_s)
        over = replace(over, grant=replace(lease.grant, lifetime=until))
    bounds = Lifetime(now.boot_s, now.boot_s if at_once else NEVER)
    if (over := rotation.bounded(over, bounds)) != lease:
        leases[id_] = over
        effects.append(Record(id_, over))
