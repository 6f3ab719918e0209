"""Who waits for more than a type: an address of the present network, or another than there are.

Each kind of wish is an `Asking` of its own, with what counts as held for it, so that neither is in
the way of who wants the type alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final

from odm_agent.core.asking import Asking
from odm_agent.core.clock import Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Release, Request
from odm_agent.core.events import Failed, Failure, Offered
from odm_agent.core.grants import Grant, Want
from odm_agent.core.holding import Holding
from odm_agent.core.model import TYPES, Family

#: A new address is made of what is held: for that nothing is requested.
_ALL: Final = frozenset[Want](product(TYPES, Family))


@dataclass(frozen=True, slots=True)
class Wishing:
    """Who waits for what the present network serves, and who for a new address."""

    on_net: Asking = field(default_factory=Asking)
    fresh: Asking = field(default_factory=Asking)

    def needed(self, want: Want, holding: Holding, now: Moment) -> tuple["Wishing", list[Effect]]:
        """A socket found nothing that the present network serves."""
        on_net, effects = self.on_net.needed(want, holding.wants(on_net=True), now)
        return replace(self, on_net=on_net), _of_the_network(effects)

    def asked(
        self, demand: Demand, want: Want, holding: Holding, now: Moment
    ) -> tuple["Wishing", Holding, list[Effect]]:
        """Somebody waits. Who wants a new address is told at once if there can be none.

        What was made since his socket found nothing may be new to it: hooks tell if it is not.
        """
        if not demand.fresh:
            held, stalled = holding.wants(on_net=True), holding.stalled_wants()
            on_net, effects = self.on_net.with_demand(demand, held, stalled, now)
            return replace(self, on_net=on_net), holding, effects
        holding, effects, cause = holding.renewed(want, now, on_net=demand.on_net, again=False)
        if cause is not None:
            return self, holding, [Answer(demand.ticket, None, cause, Failure.UNSUPPORTED)]
        fresh, answers = self.fresh.with_demand(demand, _ALL, frozenset(), now)
        return replace(self, fresh=fresh), holding, [*effects, *answers]

    def without(self, ticket: int) -> tuple["Wishing", list[Effect]]:
        """Who has this ticket waits no more."""
        on_net, released = self.on_net.without([ticket])
        fresh, _ = self.fresh.without([ticket])
        return Wishing(on_net, fresh), released

    def granted(self, grant: Grant) -> "Wishing":
        """A source gave a prefix: the present network serves it, unless that is not known yet."""
        if not grant.prefix.on_net:
            return self
        return replace(self, on_net=self.on_net.granted(grant.want))

    def failed(
        self, failed: Failed, holding: Holding, now: Moment
    ) -> tuple["Wishing", list[Effect]]:
        """No source can give it."""
        if failed.want not in self.on_net.requested:
            return self, []
        if failed.want in holding.wants(on_net=True):  # it is there soon
            return replace(self, on_net=self.on_net.granted(failed.want)), []
        on_net, answers = self.on_net.failed(failed, holding.stalled_wants(), now)
        return replace(self, on_net=on_net), answers

    def offered(
        self, offered: Offered, holding: Holding, now: Moment
    ) -> tuple["Wishing", list[Effect]]:
        """Answer who waits for what is offered now; request what is not held of the network."""
        renewing = holding.renewing(offered.own)
        there = {want: each for want, each in offered.offers.items() if want in offered.on_net}
        made = {want: each for want, each in offered.offers.items() if want not in renewing}
        on_net, effects = self.on_net.offered(
            replace(offered, offers=there), holding.wants(on_net=True), now
        )
        fresh, answers = self.fresh.offered(replace(offered, offers=made), _ALL, now)
        return Wishing(on_net, fresh), [*_of_the_network(effects), *answers]

    def at(self, holding: Holding, now: Moment) -> tuple["Wishing", list[Effect]]:
        """What time has made of it."""
        on_net, effects = self.on_net.at(holding.wants(on_net=True), now)
        fresh, late = self.fresh.at(_ALL, now)
        return Wishing(on_net, fresh), [*_of_the_network(effects), *late]

    def deadline(self) -> float:
        """When time changes something (boot-time seconds)."""
        return min(self.on_net.deadline(), self.fresh.deadline())


def unless_wanted(effects: Iterable[Effect], others: Asking) -> list[Effect]:
    """Nothing is released that `others` have requested, too: sources know one request of a want."""
    return [e for e in effects if not (isinstance(e, Release) and e.want in others.requested)]


def _of_the_network(effects: Iterable[Effect]) -> list[Effect]:
    return [replace(each, on_net=True) if isinstance(each, Request) else each for each in effects]
