"""All that the agent decides by time or in memory of what happened: one function, no clock.

`step` takes an event and the moment, and gives the next state and what is to be done. The same
events at the same moments give the same effects. Only `Tick` looks and lets time pass, so what
happens together (a reload) is seen together; its `Look` comes last, and `Offered` answers it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from odm_agent.core import rotation
from odm_agent.core.asking import Asking
from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import Effect, Refuse
from odm_agent.core.events import (
    Asked,
    Cancelled,
    Changed,
    Dirty,
    Event,
    Failed,
    Granted,
    Interrupted,
    Metered,
    Needed,
    Offered,
    Probed,
    Rotated,
    Serving,
    Tick,
    Unconfirmed,
    Unserved,
    Withdrawn,
)
from odm_agent.core.grants import Grant
from odm_agent.core.holding import Holding
from odm_agent.core.leases import Lease
from odm_agent.core.looking import RESYNC_S, Looking
from odm_agent.core.wishing import Wishing, unless_wanted


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the machine knows; `begun` makes the first."""

    looking: Looking
    holding: Holding = field(default_factory=Holding)
    asking: Asking = field(default_factory=Asking)
    wishing: Wishing = field(default_factory=Wishing)


def begun(leases: Iterable[Lease], now: Moment) -> State:
    """The state of an agent that starts and goes on with these leases."""
    held = {lease.grant.prefix.id: lease for lease in leases}
    looking = Looking(now.boot_s, now.boot_s + RESYNC_S, Dirty.ALL)
    taken = (each.id for lease in held.values() for each in lease.addresses)
    return State(looking, Holding(held, changed=True, next_id=max(taken, default=0) + 1))


def step(state: State, event: Event, now: Moment) -> tuple[State, list[Effect]]:
    """What an event makes of the state, and what is to be done, in this order."""
    looking, holding, asking = state.looking, state.holding, state.asking
    wishing, effects = state.wishing, list[Effect]()
    match event:
        case Changed(what):
            looking = looking.touched(what, now)
        case Granted(grant):
            asking, wishing = _granted(state, grant, now), wishing.granted(grant)
            holding, effects = holding.with_grant(grant, now)
            if refused := next((e for e in effects if isinstance(e, Refuse)), None):
                failed = Failed(grant.want, refused.cause)
                asking, answers = asking.failed(failed, holding.stalled_wants(), now)
                effects += answers
        case Withdrawn(key, at_once):
            holding, effects = holding.without_grant(key, now, at_once=at_once)
        case Unconfirmed(key, attached):
            holding, effects = holding.without_confirmation(key, now, attached=attached)
        case Unserved(key):
            holding, effects, wants = holding.unserved(key, now)
            for want in wants:
                asking, requests = asking.needed(want, holding.wants(), now)
                effects += requests
        case Failed(want):
            wishing, answers = wishing.failed(event, holding, now)
            if want in holding.wants():  # it is there soon
                asking = asking.granted(want)
            else:
                asking, effects = asking.failed(event, holding.stalled_wants(), now)
            effects += answers
        case Needed(want, on_net, True):
            holding, effects, _ = holding.renewed(want, now, on_net=on_net, again=True)
        case Needed(want, True):
            wishing, effects = wishing.needed(want, holding, now)
        case Needed(want):
            asking, effects = asking.needed(want, holding.wants(), now)
        case Asked(demand):
            wishes = demand.on_net or demand.fresh
            # What is requested was not there, and whatever brings it leads to a look.
            if wishes or demand.want not in asking.requested:
                what = Dirty.ALL if demand.want is None else Dirty.KERNEL
                looking = looking.touched(what, now, 0.0)
            if demand.want is not None and wishes:
                wishing, holding, effects = wishing.asked(demand, demand.want, holding, now)
            else:
                held, stalled = holding.wants(), holding.stalled_wants()
                asking, effects = asking.with_demand(demand, held, stalled, now)
        case Cancelled(ticket):
            asking, effects = asking.without([ticket])
            wishing, released = wishing.without(ticket)
            effects = _released(effects, released, asking, wishing)
        case Probed():
            looking, effects = looking.probed(event, now)
        case Offered():
            return _offered(state, event, now)
        case Interrupted():
            looking = looking.interrupted(event, now)
        case Serving(offers):
            asking, effects = asking.answered(offers)
        case Metered(warned, spent):
            holding, effects = holding.each(lambda each: rotation.metered(each, warned, spent))
        case Rotated(lease_ids):
            holding, effects = holding.each(
                lambda each: rotation.rotated(each, lease_ids, now.boot_s)
            )
        case Tick():
            return _at(state, now)
    return State(looking, holding, asking, wishing), effects


def deadline(state: State) -> float | None:
    """When the next `Tick` has something to do (boot-time seconds); None: never."""
    parts = (state.holding, state.asking, state.wishing)
    due_s = min(state.looking.due_s, *(each.deadline() for each in parts))
    return None if due_s == NEVER else due_s


def _granted(state: State, grant: Grant, now: Moment) -> Asking:
    """A source gave a prefix, also of those that it has given already."""
    known, asking = grant.prefix.id in state.holding.leases, state.asking
    if grant.prefix.id in state.holding.stalled and grant.want in asking.requested:
        return asking.in_vain(grant.want, now)
    return asking.granted(grant.want, anew=not known)


def _at(state: State, now: Moment) -> tuple[State, list[Effect]]:
    holding, projected = state.holding.at(now)
    looking = state.looking
    is_due = holding.idle_deadline() <= now.boot_s
    if projected or is_due:
        looking = looking.touched(Dirty.KERNEL, now, 0.0)
    asking, late = state.asking.at(holding.wants(), now)
    wishing, later = state.wishing.at(holding, now)
    late = _released(late, later, asking, wishing)
    looking, look = looking.at(
        holding.over(now), holding.lingering(), holding.watched(), bool(projected) or is_due, now
    )
    return State(looking, holding, asking, wishing), [*projected, *late, *look]


def _offered(state: State, offered: Offered, now: Moment) -> tuple[State, list[Effect]]:
    holding, forgotten = state.holding.offered(offered, now)
    asking, answers = state.asking.offered(offered, holding.wants(), now)
    wishing, told = state.wishing.offered(offered, holding, now)
    answers = _released(answers, told, asking, wishing)
    looking, probes = state.looking.offered(offered, now)
    return State(looking, holding, asking, wishing), [*forgotten, *answers, *probes]


def _released(
    plain: list[Effect], wished: list[Effect], asking: Asking, wishing: Wishing
) -> list[Effect]:
    """What both kinds of asking want done, without what the other one still has requested."""
    return [*unless_wanted(plain, wishing.on_net), *unless_wanted(wished, asking)]
