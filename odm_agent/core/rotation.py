"""The addresses of one prefix through time, if they end: which there are, and which come next.

New sockets get the current ones. A spare is made ready before one of these is over, and takes its
place; the former one lingers for the sockets that have it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.jitter import jitter
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import AddressLease, Cause, Lifetime, Phase

#: A successor is made ready for this part of the time that an address has, within these bounds: its
#: conflict check takes a second or two, and a socket should not wait for it.
_AHEAD: Final = 0.1
_AHEAD_S: Final = (5.0, 600.0)
#: An address is replaced by this much before the kernel ends it, so that the mark's route follows
#: in time; at most a twentieth of its time.
_LEAD_S: Final = 1.0

#: Gives the id of a lease that begins; None: there is none left.
Ids = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Turn:
    """A lease after a step. `retired` are the numbers of addresses that are gone from now on.

    `causes`: why others have taken the place of addresses, by the ids of the leases of these.
    """

    lease: Lease
    retired: tuple[int, ...] = ()
    causes: Mapping[int, Cause] = field(default_factory=dict)


def begun(lease: Lease, now_s: float, ids: Ids) -> Lease:
    """A lease whose prefix has come, or has come again with other terms.

    Addresses that it has go on, by the new terms, counted from when they began to serve. A prefix
    whose addresses once ended goes on with leases, though nothing ends them any more; so does one
    of which each class has addresses of its own, whether they end or not.
    """
    prefix = lease.grant.prefix
    if not (prefix.terms.end or lease.grant.lifetime or lease.addresses or prefix.by_class):
        return lease
    aged = [_dated(each, lease) for each in lease.addresses]
    missing = _wanted(lease)
    kept: list[AddressLease] = []
    former: list[AddressLease] = []
    for each in aged:
        if each.phase is not Phase.CURRENT:
            gone = each.class_name not in missing
            kept.append(replace(each, phase=Phase.LINGERING) if gone else each)
        elif missing[each.class_name]:
            missing[each.class_name] -= 1
            kept.append(each)
        else:
            former.append(replace(each, phase=Phase.LINGERING))
    lease = replace(lease, addresses=(*kept, *former))
    for class_name in missing.elements():
        lease = _with_one_for(lease, class_name, now_s, ids)
    return lease


def _wanted(lease: Lease) -> Counter[str]:
    """How many addresses at a time are given to sockets: of each class, or of all ("")."""
    prefix = lease.grant.prefix
    if prefix.by_class:
        return Counter(seat.class_name for seat in prefix.seats)
    return Counter({"": 1 if prefix.one_lease else prefix.pool})


def _with_one_for(lease: Lease, class_name: str, now_s: float, ids: Ids) -> Lease:
    """With a current address more. A class that has come back has the one that it had, if that is
    there yet and not over.
    """
    if class_name:
        addresses = list(lease.addresses)
        for at_, each in reversed(list(enumerate(addresses))):
            is_its = each.class_name == class_name and each.phase is Phase.LINGERING
            if is_its and _due_s(each, lease) > now_s:
                addresses[at_] = replace(each, phase=Phase.CURRENT, succeeded=False)
                return replace(lease, addresses=tuple(addresses))
    return _with_another(lease, Phase.CURRENT, now_s, ids, class_name)


def bounded(lease: Lease, bounds: Lifetime) -> Lease:
    """A lease whose addresses serve no longer than that."""
    return _each(
        lease,
        lambda each: True,
        lambda each: replace(each, lifetime=_within(each.lifetime, bounds)),
    )


def at(lease: Lease, now_s: float, ids: Ids) -> Turn:
    """What time has made of a lease's addresses. In a prefix that is over none succeeds another."""
    if not lease.addresses:
        return Turn(lease)
    if lease.phase is Phase.LINGERING:
        return _retired(lease, now_s)
    promoted, causes = _promoted(lease, now_s)
    turn = _retired(_with_spares(promoted, now_s, ids), now_s)
    return replace(turn, causes=causes) if causes else turn


def ready(lease: Lease, lease_ids: frozenset[int]) -> Lease:
    """The kernel holds these addresses: they may take another one's place."""
    return _each(
        lease,
        lambda each: each.phase is Phase.PROBING and each.id in lease_ids,
        lambda each: replace(each, phase=Phase.SPARE),
    )


def metered(lease: Lease, warned: frozenset[int], spent: frozenset[int]) -> Lease:
    """So much was sent from these addresses."""
    return _each(
        lease,
        lambda each: each.id in warned | spent,
        lambda each: replace(each, warned=True, spent=each.spent or each.id in spent),
    )


def rotated(lease: Lease, lease_ids: frozenset[int], now_s: float) -> Lease:
    """Somebody wants other addresses in the place of these, now."""
    return _each(
        lease,
        lambda each: each.id in lease_ids and each.phase is Phase.CURRENT,
        lambda each: replace(each, rotate_at_s=min(each.rotate_at_s, now_s)),
    )


def unused(lease: Lease, lease_ids: frozenset[int], now_s: float) -> Lease:
    """No socket uses these addresses: those that linger are let go."""
    gone = [e for e in lease.addresses if e.phase is Phase.LINGERING and e.id in lease_ids]
    return _without(lease, gone, now_s) if gone else lease


def deadline(lease: Lease) -> float:
    """When `at` has something to do (boot-time seconds).

    Not when an address is over whose successor is not ready yet: an event says that it is.
    """
    due: list[float] = [until_s for _, until_s in lease.resting]
    ready = {each.class_name for each in lease.addresses if each.phase is Phase.SPARE}
    for each in lease.addresses:
        if Phase.LINGERING in (each.phase, lease.phase):
            due.append(each.lifetime.valid_until_s)
        elif each.phase is Phase.CURRENT and not lease.grant.prefix.one_lease:
            if each.class_name in ready:
                due.append(_due_s(each, lease))
            if not each.succeeded:
                due.append(_spare_s(each, lease))
    return min(due, default=NEVER)


def _promoted(lease: Lease, now_s: float) -> tuple[Lease, dict[int, Cause]]:
    """Spares in the place of what is over, as many as there are; and why. A class's own address is
    followed by one of the same class.
    """
    addresses = list(lease.addresses)
    over = [
        n for n, e in enumerate(addresses) if e.phase is Phase.CURRENT and _due_s(e, lease) <= now_s
    ]
    spares = [n for n, e in enumerate(addresses) if e.phase is Phase.SPARE]
    former: list[AddressLease] = []
    causes: dict[int, Cause] = {}
    taken: set[int] = set()
    for old in sorted(over, key=lambda n: _due_s(addresses[n], lease)):
        of_class = addresses[old].class_name
        new = next((n for n in spares if addresses[n].class_name == of_class), None)
        if new is None:
            continue
        spares.remove(new)
        former.append(replace(addresses[old], phase=Phase.LINGERING))
        causes[addresses[old].id] = _cause(addresses[old], lease)
        promoted = replace(addresses[new], phase=Phase.CURRENT, born_s=now_s)
        addresses[old] = _dated(promoted, lease)
        taken.add(new)
    if not former:
        return lease, causes
    rest = [each for n, each in enumerate(addresses) if n not in taken]
    return replace(lease, addresses=(*rest, *former)), causes


def _with_spares(lease: Lease, now_s: float, ids: Ids) -> Lease:
    """A successor is made for each address that will be over soon."""
    if lease.grant.prefix.one_lease:
        return lease
    for each in lease.addresses:
        if each.phase is Phase.CURRENT and not each.succeeded and _spare_s(each, lease) <= now_s:
            lease = _with_another(lease, Phase.PROBING, now_s, ids, each.class_name)
            lease = _each(lease, each.__eq__, lambda e: replace(e, succeeded=True))
    return lease


def _retired(lease: Lease, now_s: float) -> Turn:
    """Without those that may not be used any more, nor the oldest of too many."""
    resting = tuple(each for each in lease.resting if each[1] > now_s)
    lease = replace(lease, resting=resting) if resting != lease.resting else lease
    over = lease.phase is Phase.LINGERING
    lingering = [each for each in lease.addresses if over or each.phase is Phase.LINGERING]
    gone = [each for each in lingering if each.lifetime.valid_until_s <= now_s]
    left = [e for e in lingering if e.phase is Phase.LINGERING and e not in gone]
    left.sort(key=lambda each: each.born_s)
    gone += left[: max(0, len(left) - lease.grant.prefix.terms.linger)]
    if not gone:
        return Turn(lease)
    return Turn(_without(lease, gone, now_s), tuple(each.number for each in gone))


def _without(lease: Lease, gone: Iterable[AddressLease], now_s: float) -> Lease:
    """Without these, whose addresses rest for a while."""
    numbers = {each.number for each in gone}
    rest_s = lease.grant.prefix.terms.reuse_s
    resting = ((number, now_s + rest_s) for number in sorted(numbers)) if rest_s else ()
    return replace(
        lease,
        addresses=tuple(each for each in lease.addresses if each.number not in numbers),
        resting=(*lease.resting, *resting),
    )


def _with_another(
    lease: Lease, phase: Phase, now_s: float, ids: Ids, class_name: str = ""
) -> Lease:
    """With a new address, of a number that none ever had."""
    if (id_ := ids()) is None:
        return lease
    new = AddressLease(lease.numbered, id_, now_s, phase, class_name=class_name)
    return replace(
        lease, addresses=(*lease.addresses, _dated(new, lease)), numbered=lease.numbered + 1
    )


def _each(
    lease: Lease,
    which: Callable[[AddressLease], bool],
    change: Callable[[AddressLease], AddressLease],
) -> Lease:
    addresses = tuple(change(each) if which(each) else each for each in lease.addresses)
    return lease if addresses == lease.addresses else replace(lease, addresses=addresses)


def _dated(each: AddressLease, lease: Lease) -> AddressLease:
    """The same address, with the dates that the terms give it. None outlives its prefix."""
    prefix = lease.grant.prefix
    terms = prefix.terms_of(each.class_name)
    own = Lifetime(_after(each, terms.preferred_s), _after(each, terms.valid_s))
    return replace(
        each,
        lifetime=_within(own, lease.lifetime),
        rotate_at_s=_after(
            each, terms.rotate_s and terms.rotate_s * (1 - jitter(prefix.id, each.number))
        ),
    )


def _within(lifetime: Lifetime, bounds: Lifetime) -> Lifetime:
    return Lifetime(
        min(lifetime.preferred_until_s, bounds.preferred_until_s),
        min(lifetime.valid_until_s, bounds.valid_until_s),
    )


def _after(each: AddressLease, seconds: float | None) -> float:
    return NEVER if seconds is None else each.born_s + seconds


def _due_s(each: AddressLease, lease: Lease) -> float:
    """When another address is to take its place; no other one of the prefix outlives it."""
    if each.spent:
        return each.born_s
    until_s = min(each.lifetime.preferred_until_s, each.lifetime.valid_until_s)
    if until_s >= min(lease.lifetime.preferred_until_s, lease.lifetime.valid_until_s):
        until_s = NEVER
    lead_s = min(_LEAD_S, (until_s - each.born_s) / 20) if until_s != NEVER else 0.0
    return min(each.rotate_at_s, until_s - lead_s)


def _cause(each: AddressLease, lease: Lease) -> Cause:
    """Why an address is over. What was asked for is sooner than the terms have it."""
    if each.spent:
        return Cause.BUDGET
    return Cause.ASKED if each.rotate_at_s < _dated(each, lease).rotate_at_s else Cause.TIME


def _spare_s(each: AddressLease, lease: Lease) -> float:
    """When its successor is to be made."""
    due_s = _due_s(each, lease)
    if each.warned or due_s == NEVER:
        return each.born_s if each.warned else NEVER
    least_s, most_s = _AHEAD_S
    whole_s = due_s - each.born_s
    return due_s - min(max(_AHEAD * whole_s, least_s), most_s, whole_s / 2)
