"""A source of prefixes that a network delegates, by type and on demand."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import Failed, Failure, Granted, Unconfirmed, Unserved, Withdrawn
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.handover import waits
from odm_agent.core.leases import Lease
from odm_agent.core.model import AddressType, Family
from odm_agent.sources.base import (
    Input,
    Linked,
    Noted,
    Outcome,
    Output,
    Received,
    Resumed,
    Send,
)
from odm_agent.sources.dhcpv6.binding import Binding, Held
from odm_agent.sources.dhcpv6.bindings import MOST_BINDINGS, Bindings
from odm_agent.sources.dhcpv6.codec import MalformedError, packed, parsed
from odm_agent.sources.dhcpv6.grants import binding_of, grant_of, key_of
from odm_agent.sources.dhcpv6.incoming import News, asker_of, news_of, router_of
from odm_agent.sources.dhcpv6.messages import Codes
from odm_agent.sources.dhcpv6.routers import Routers
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.standing import Standing, standing_of
from odm_agent.sources.dhcpv6.transitions import (
    ASKING,
    SOL_MAX_DELAY_S,
    TRANSITIONS,
    Came,
    Do,
    State,
)
from odm_agent.sources.dhcpv6.waiters import Waiters

#: All servers and relays of a link (RFC 8415, section 7.1).
SERVERS: Final = "ff02::1:2"
#: How long who waits is left without an answer of any server.
PATIENCE_S: Final = 10.0
#: After so long what was of the wrong type is asked for again, if it is to be there at the start.
WRONG_AGAIN_S: Final = 600.0


class DelegationSource:
    """Asks for prefixes of the types that are wanted, keeps them, and gives them back."""

    def __init__(self, settings: Settings, duid: bytes, random: Random) -> None:
        """It is attached nowhere until `Linked` says otherwise."""
        self._settings, self._duid, self._random = settings, duid, random
        self._codes = Codes(settings.option_code, settings.enterprise)
        self._bindings = Bindings(random)
        self._up = False
        #: Where it is attached, or was last.
        self._interface = ""
        self._routers = Routers()
        self._waiters = Waiters(settings.name)
        #: Types that are not asked for by ourselves before (boot-time seconds).
        self._not_before: dict[AddressType, float] = {}
        self._seen_s = -NEVER
        #: What the configuration says now, if it was read since.
        self._told: Settings | None = None

    @property
    def name(self) -> str:
        """One word, by which leases and numbers of prefixes name it."""
        return f"delegation:{self._settings.name}"

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Where it may ask, names or globs, the better ones first."""
        return (self._told or self._settings).interfaces

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing, and asks for nothing."""
        return not (self._bindings or self._told)

    def configure(self, settings: Settings) -> None:
        """The configuration of the delegation of this name is another one; the next step heeds it.

        A prefix stays where its type is still named, and serves as the settings say now. Others go
        back to the network. Where it may not be attached any more by the interface that it is, all
        begins anew.
        """
        self._told = settings

    def standings(self) -> list[Standing]:
        """How it is with each type, and each prefix that is held of one. From any thread."""
        troubles = self._waiters.troubles
        found = [standing_of(each, troubles) for each in self._bindings]
        idle = self._settings.types - {each.type for each in found}
        found += (Standing(t, "idle", trouble=troubles.get(t, "")) for t in idle)
        return sorted(found, key=lambda each: each.type)

    def deadline(self) -> float | None:
        """When it wants a `Tick`."""
        if self._told is not None:
            return self._seen_s
        next_s = min(self._bindings.next_s(self._seen_s), self._waiters.next_s)
        return None if next_s == NEVER else next_s

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        """What it makes of something that happened; time passes with everything that does."""
        said = self._heed(now.boot_s)
        match given:
            case Resumed(leases):
                said += self._resume(leases, now.boot_s)
            case Linked(interface, True):
                said += self._attach(interface, now.boot_s)
            case Linked(interface, False) if not self._up or interface == self._interface:
                said += self._detach(now.boot_s)
            case Request(want, on_net):
                said += self._request(*want, now.boot_s, on_net=on_net)
            case Release((type_, family)) if family is Family.IPV6:
                self._waiters.wait_no_more(type_)  # what nobody wants is left as time passes
            case GiveBack(key):
                said += self._give_back(key, now.boot_s)
            case Received(data, sender):
                said += self._receive(data, sender, now.boot_s)
        said += self._pass_time(now.boot_s)
        return said

    # --- what happens ---

    def _heed(self, now_s: float) -> list[Output]:
        """The configuration was read again."""
        settings, self._told = self._told, None
        if settings is None:
            return []
        said: list[Output] = []
        if settings.interfaces != self._settings.interfaces:
            if not settings.fits(self._interface):
                said += self._detach(now_s)
            gone = [each for each in self._bindings if not settings.fits(each.interface)]
            said += [each for b in gone for each in self._apply(b, Came.UNWANTED, now_s)]
        self._settings = settings
        self._codes = Codes(settings.option_code, settings.enterprise)
        for binding in self._bindings:
            if binding.type not in settings.types:
                said += self._apply(binding, Came.UNWANTED, now_s)
            elif binding.is_held and binding.held is not None:
                said.append(Granted(self._grant_of(binding, binding.held)))
        for type_ in self._waiters.keep_only(settings.types):
            said += self._waiters.fail(type_, _NOT_NAMED, Failure.UNSUPPORTED)
        for type_ in self._not_before.keys() - settings.types:
            del self._not_before[type_]
        return said

    def _resume(self, leases: Sequence[Lease], now_s: float) -> list[Output]:
        """Go on with what is held; the settings may be others now."""
        said: list[Output] = []
        ended: set[GrantKey] = set()
        kept: set[GrantKey] = set()
        for lease in leases:
            binding = binding_of(lease, self._settings, now_s)
            known = binding is not None and binding.iaid in self._bindings
            if binding is None or binding.held is None or known or self._bindings.is_full:
                ended.add(lease.grant.key)
                continue
            kept.add(lease.grant.key)
            self._routers.resume(lease.grant.prefix)
            self._bindings.add(binding)
            grant = self._grant_of(binding, binding.held)
            prefix = replace(grant.prefix, id=lease.grant.prefix.id, name=lease.grant.prefix.name)
            said.append(Granted(replace(grant, prefix=prefix)))
        # One that another has replaced under its key lingers by itself, for its sockets.
        return [*said, *map(Withdrawn, sorted(ended - kept, key=lambda each: each.instance))]

    def _attach(self, interface: str, now_s: float) -> list[Output]:
        """There is a link, to whichever network; what is held is confirmed there."""
        if self._up and interface == self._interface:
            return []
        said = self._detach(now_s) if self._up else []
        self._up, self._interface = True, interface
        self._routers.unknown()
        self._bindings.attach(interface)
        elsewhere = [e for e in self._bindings if e.attached and e.interface != interface]
        said += self._unconfirmed(elsewhere)
        said += [e for b in self._bindings for e in self._apply(b, Came.LINK_UP, now_s)]
        self._waiters.expect_nothing()
        for type_ in sorted(self._settings.types):
            if type_ not in self._waiters:
                continue
            on_net = self._waiters.wants_on_net(type_)
            if (granted := self._held_of(type_, now_s, on_net=on_net)) is not None:
                self._waiters.wait_no_more(type_)
                said.append(granted)
        delay_s = self._random.uniform(0.0, SOL_MAX_DELAY_S)
        return said + self._begin_wanted(now_s, delay_s)

    def _detach(self, now_s: float) -> list[Output]:
        """The link is gone; what is held is so still, and nothing leaves from it."""
        self._up = False
        said = [e for b in self._bindings for e in self._apply(b, Came.LINK_DOWN, now_s)]
        self._waiters.expect_nothing()
        return said + self._unconfirmed([e for e in self._bindings if e.attached])

    def _unconfirmed(self, bindings: Sequence[Binding]) -> list[Output]:
        said: list[Output] = []
        for binding in bindings:
            if binding.is_held:
                binding.detach()
                said.append(Unconfirmed(key_of(self.name, binding), attached=False))
        return said

    def _request(
        self, type_: AddressType, family: Family, now_s: float, *, on_net: bool
    ) -> list[Output]:
        if family is not Family.IPV6 or type_ not in self._settings.types:
            cause = f"no IPv{family} prefix for {type_.word} can be asked for at {self.name}"
            return [Failed((type_, family), cause, Failure.UNSUPPORTED)]
        if self._up and (granted := self._held_of(type_, now_s, on_net=on_net)) is not None:
            return [granted]
        if type_ in self._waiters:
            return []
        self._waiters.wait(type_, now_s + PATIENCE_S, on_net=on_net)
        of_type = self._bindings.of(type_)
        return [each for b in of_type for each in self._apply(b, Came.WANTED, now_s)]

    def _held_of(self, type_: AddressType, now_s: float, *, on_net: bool) -> Granted | None:
        """A prefix of the type that is held, for whom asks for one; `on_net`: of this network."""
        for binding in self._bindings.of(type_):
            if binding.serves(now_s, on_net=on_net) and binding.held is not None:
                return Granted(self._grant_of(binding, binding.held))
        return None

    def _give_back(self, key: GrantKey, now_s: float) -> list[Output]:
        """Nothing uses what is held. What is held at start is so nevertheless."""
        said: list[Output] = []
        for binding in self._bindings:
            if key_of(self.name, binding) != key or binding.held is None or not binding.is_held:
                continue
            here = binding.state is not State.UNSERVED
            if binding.type in self._settings.at_start and here:
                said.append(Granted(self._grant_of(binding, binding.held)))
            else:
                said += self._apply(binding, Came.UNWANTED, now_s)
        return said

    def _receive(self, data: bytes, sender: str, now_s: float) -> list[Output]:
        """A message counts if it answers the exchange of a binding; others change nothing."""
        try:
            message = parsed(data, self._codes)
        except MalformedError:
            return []
        binding = asker_of(message, self._bindings, self._duid)
        router = router_of(sender)
        if binding is None or router is None:
            return []
        if message.sol_max_rt_s is not None:
            self._bindings.limit_solicits(message.sol_max_rt_s)
        news = news_of(message, binding, router, self._settings, now_s)
        return [] if news is None else self._apply(binding, news.came, now_s, news)

    # --- what comes of it ---

    def _grant_of(self, binding: Binding, held: Held) -> Grant:
        return grant_of(self.name, binding, held, self._settings, self._routers.former)

    def _apply(
        self, binding: Binding, came: Came, now_s: float, news: News | None = None
    ) -> list[Output]:
        """One step of the table."""
        found, given = (news.found, news.given) if news is not None else (None, None)
        if binding.is_held and not binding.attached:
            came = _of_another_network(binding, came, given)
        if (after := TRANSITIONS[binding.state].get(came)) is None:
            return []
        if came is Came.LINK_DOWN:
            binding.leave()
        elif Do.GRANT in after.do and given is not None:
            given = binding.settling(given, now_s)
        said: list[Output] = []
        why, before, was_attached = found or binding.misfit, binding.held, binding.attached
        binding.note(came, found, given)
        if came is Came.NOT_HERE and found is not None:
            back = self._bindings.refusal(binding, found, self._duid, now_s)
            said += [Send(packed(back, self._codes), SERVERS)] if back is not None else []
        network = binding.held.network if binding.held else None
        if Do.UNSERVED in after.do:
            said.append(Unserved(key_of(self.name, binding)))
            said.append(Noted(Outcome.UNSERVED, binding.type, network, why.cause if why else ""))
        if Do.DEPRECATE in after.do and binding.attached and binding.held is not None:
            binding.deprecate(now_s)
            said.append(Granted(self._grant_of(binding, binding.held)))
        if Do.WITHDRAW in after.do:
            key = key_of(self.name, binding)
            moved = came in (Came.TAKEN_BACK, Came.WRONG) and not was_attached
            said.append(Unserved(key) if moved else Withdrawn(key, at_once=True))
            cause = why.cause if why else _CAUSES.get(came, "")
            outcome = Outcome.RELEASED if came is Came.UNWANTED else Outcome.WITHDRAWN
            said.append(Noted(outcome, binding.type, network, cause))
        if Do.GRANT in after.do and given is not None:
            binding.interface = self._interface
            self._routers.answers(given.gateway)
            said.append(self._waiters.granted(binding, given, before, now_s))
            said.append(Granted(self._grant_of(binding, given)))
        if Do.FAIL in after.do and why is not None:
            took_s = binding.took_s(now_s)
            said += self._waiters.fail(binding.type, why.cause, why.kind, took_s)
        if came is Came.WRONG:
            self._not_before[binding.type] = now_s + WRONG_AGAIN_S
        if after.state is not binding.state:
            self._bindings.enter(binding, after, now_s)
        return said

    def _pass_time(self, now_s: float) -> list[Output]:
        said: list[Output] = []
        for type_ in self._waiters.late(now_s):
            named = " or ".join(self._settings.interfaces)
            cause = _SILENT if self._up else f"{named} has no link"
            said += self._waiters.fail(type_, cause, Failure.TIMED_OUT, PATIENCE_S)
        for binding in self._bindings:
            while (came := binding.due(now_s)) is not None:
                said += self._apply(binding, came, now_s)
        for binding in self._bindings:
            unwanted = not self._is_wanted(binding.type, now_s)
            if binding.state in ASKING and (unwanted or self._is_served(binding.type, now_s)):
                said += self._apply(binding, Came.UNWANTED, now_s)
        if self._up:
            said += self._begin_wanted(now_s)
        self._seen_s = now_s
        due = self._bindings.due_messages(self._settings, self._duid, now_s)
        return [*said, *(Send(packed(message, self._codes), SERVERS) for message in due)]

    def _is_wanted(self, type_: AddressType, now_s: float) -> bool:
        """Whether a prefix is to be asked for: also if one is held that is to go soon."""
        return (
            type_ in self._waiters
            or type_ in self._settings.at_start
            or any(each.is_deprecated(now_s) for each in self._bindings.of(type_))
        )

    def _is_served(self, type_: AddressType, now_s: float) -> bool:
        """Whether one that is held serves who wants another one: its network has come back."""
        on_net = self._waiters.wants_on_net(type_)
        return any(each.serves(now_s, on_net=on_net) for each in self._bindings.of(type_))

    def _begin_wanted(self, now_s: float, delay_s: float = 0.0) -> list[Output]:
        """Begin to ask for what is wanted and neither held nor asked for."""
        said: list[Output] = []
        for type_ in sorted(self._settings.types):
            of_type = self._bindings.of(type_)
            on_net = self._waiters.wants_on_net(type_)
            served = any(each.will_serve(now_s, on_net=on_net) for each in of_type)
            if served or not self._is_wanted(type_, now_s):
                continue
            if self._bindings.is_full:
                said += self._waiters.fail(type_, _FULL, Failure.REFUSED)
                continue
            begin_s = max(now_s + delay_s, self._not_before.get(type_, now_s))
            iaid = self._bindings.free_iaid(type_, self._settings.first_instance)
            binding = self._bindings.add(Binding(iaid, type_, begin_s=begin_s))
            if type_ in self._waiters:
                said += self._apply(binding, Came.WANTED, now_s)
                continue
            if begin_s <= now_s:
                said += self._apply(binding, Came.BEGIN, now_s)
            if type_ in self._settings.at_start:
                self._waiters.expect(type_, begin_s + PATIENCE_S)
        return said


def _of_another_network(binding: Binding, came: Came, given: Held | None) -> Came:
    """What an answer means for a prefix that came by another link, by its type: whether it was
    taken back, or is not served here.
    """
    lost = came in (Came.TAKEN_BACK, Came.WRONG) or (
        given is not None and binding.held is not None and given.network != binding.held.network
    )
    return Came.NOT_HERE if lost and waits(binding.type) else came


_SILENT: Final = "no server answers"
_NOT_NAMED: Final = "the configuration does not name it any more"
_FULL: Final = f"{MOST_BINDINGS} prefixes are held or are being given back"
#: Why a prefix is held no more, where no message says so.
_CAUSES: Final = {Came.EXPIRED: "it is not valid any more, and no server has made it longer"}
