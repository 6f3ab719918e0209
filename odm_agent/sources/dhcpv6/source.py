"""A source of prefixes that a network delegates, by type and on demand."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import Failed, Failure, Granted, Withdrawn
from odm_agent.core.grants import GrantKey
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
from odm_agent.sources.dhcpv6 import timing
from odm_agent.sources.dhcpv6.answers import Judged, judged
from odm_agent.sources.dhcpv6.binding import Binding, Held, held, iaid_of
from odm_agent.sources.dhcpv6.codec import MalformedError, packed, parsed
from odm_agent.sources.dhcpv6.grants import binding_of, grant_of, key_of
from odm_agent.sources.dhcpv6.incoming import asker_of, router_of
from odm_agent.sources.dhcpv6.messages import Codes, Kind
from odm_agent.sources.dhcpv6.outgoing import message_of, wish_of
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.standing import Standing, standing_of
from odm_agent.sources.dhcpv6.transitions import (
    ASKING,
    EXCHANGES,
    SOL_MAX_DELAY_S,
    TRANSITIONS,
    Came,
    Do,
    Exchange,
    Next,
    State,
)

#: All servers and relays of a link (RFC 8415, section 7.1).
SERVERS: Final = "ff02::1:2"
#: How long who waits is left without an answer of any server.
PATIENCE_S: Final = 10.0
#: A delegating relay keeps so many leases of a client, unless it is told otherwise (RFC 8987).
MOST_BINDINGS: Final = 8
#: After so long what was of the wrong type is asked for again, if it is to be there at the start.
WRONG_AGAIN_S: Final = 600.0
#: What SOL_MAX_RT may be (section 21.24), in seconds.
_SOL_MAX_RT: Final = range(60, 86401)
#: A preference with which a server need not be compared with others (section 21.8).
_TAKE_ME: Final = 255


class DelegationSource:
    """Asks for prefixes of the types that are wanted, keeps them, and gives them back."""

    def __init__(self, settings: Settings, duid: bytes, random: Random) -> None:
        """The link counts as down until `Linked` says otherwise."""
        self._settings, self._duid, self._random = settings, duid, random
        self._codes = Codes(settings.option_code, settings.enterprise)
        self._bindings: dict[int, Binding] = {}
        self._up = False
        #: Who waits, and until when (boot-time seconds).
        self._waiting: dict[AddressType, float] = {}
        #: Types that are not asked for by ourselves before (boot-time seconds).
        self._not_before: dict[AddressType, float] = {}
        self._limit = timing.RateLimit()
        self._sol_max_rt_s = EXCHANGES[State.SOLICITING].mrt_s
        self._seen_s = -NEVER
        #: What the configuration says now, if it was read since.
        self._told: Settings | None = None
        #: Types that are held from the start on are to be there by then (boot-time seconds).
        self._expected: dict[AddressType, float] = {}
        #: Why the network last gave no prefix of a type.
        self._troubles: dict[AddressType, str] = {}

    @property
    def name(self) -> str:
        """One word, by which leases and numbers of prefixes name it."""
        return f"delegation:{self._settings.name}"

    @property
    def interface(self) -> str:
        """Where it asks."""
        return (self._told or self._settings).interface

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing, and asks for nothing."""
        return not (self._bindings or self._told)

    def configure(self, settings: Settings) -> None:
        """The configuration of the delegation of this name is another one; the next step heeds it.

        A prefix stays where its type is still named, and serves as the settings say now. Others go
        back to the network. On another interface all begins anew.
        """
        self._told = settings

    def standings(self) -> list[Standing]:
        """How it is with each type, and each prefix that is held of one. From any thread."""
        found = [standing_of(each, self._troubles) for each in self._all()]
        idle = self._settings.types - {each.type for each in found}
        found += (Standing(t, "idle", trouble=self._troubles.get(t, "")) for t in idle)
        return sorted(found, key=lambda each: each.type)

    def deadline(self) -> float | None:
        """When it wants a `Tick`."""
        if self._told is not None:
            return self._seen_s
        free_s = self._limit.free_s
        due_s = [each.next_s(free_s, self._seen_s) for each in self._bindings.values()]
        due_s += self._waiting.values()
        due_s += self._expected.values()
        next_s = min(due_s, default=NEVER)
        return None if next_s == NEVER else next_s

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        """What it makes of something that happened; time passes with everything that does."""
        said = self._heed(now.boot_s)
        match given:
            case Resumed(leases):
                said += self._resume(leases, now.boot_s)
            case Linked(interface, up) if interface == self._settings.interface:
                said += self._link(up, now.boot_s)
            case Request(want):
                said += self._request(*want, now.boot_s)
            case Release((type_, family)) if family is Family.IPV6:
                self._waiting.pop(type_, None)  # what nobody wants is left as time passes
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
        if settings.interface != self._settings.interface:
            said += self._link(False, now_s)
            said += [each for b in self._all() for each in self._apply(b, Came.UNWANTED, now_s)]
        self._settings = settings
        self._codes = Codes(settings.option_code, settings.enterprise)
        for binding in self._all():
            if binding.type not in settings.types:
                said += self._apply(binding, Came.UNWANTED, now_s)
            elif binding.is_held and binding.held is not None:
                said.append(Granted(grant_of(self.name, binding, binding.held, settings)))
        for type_ in self._waiting.keys() - settings.types:
            said += self._fail(type_, _NOT_NAMED, Failure.UNSUPPORTED)
        for kept in (self._expected, self._troubles, self._not_before):
            for type_ in kept.keys() - settings.types:
                del kept[type_]
        return said

    def _resume(self, leases: Sequence[Lease], now_s: float) -> list[Output]:
        """Go on with what is held; the settings may be others now."""
        said: list[Output] = []
        for lease in leases:
            binding = binding_of(lease, self._settings, now_s)
            full = len(self._bindings) >= MOST_BINDINGS
            if binding is None or binding.held is None or binding.iaid in self._bindings or full:
                said.append(Withdrawn(lease.grant.key))
                continue
            self._bindings[binding.iaid] = binding
            grant = grant_of(self.name, binding, binding.held, self._settings)
            prefix = replace(grant.prefix, id=lease.grant.prefix.id, name=lease.grant.prefix.name)
            said.append(Granted(replace(grant, prefix=prefix)))
        return said

    def _link(self, up: bool, now_s: float) -> list[Output]:
        if up == self._up:
            return []
        self._up = up
        self._sol_max_rt_s = EXCHANGES[State.SOLICITING].mrt_s  # it may be another link
        came = Came.LINK_UP if up else Came.LINK_DOWN
        said = [each for b in self._all() for each in self._apply(b, came, now_s)]
        self._expected = {}
        if up:
            delay_s = self._random.uniform(0.0, SOL_MAX_DELAY_S)
            said += self._begin_wanted(now_s, delay_s)
        return said

    def _request(self, type_: AddressType, family: Family, now_s: float) -> list[Output]:
        if family is not Family.IPV6 or type_ not in self._settings.types:
            cause = f"no IPv{family} prefix for {type_.word} can be asked for at {self.name}"
            return [Failed((type_, family), cause, Failure.UNSUPPORTED)]
        for binding in self._all():
            if binding.type is type_ and binding.is_preferred(now_s) and binding.held is not None:
                return [Granted(grant_of(self.name, binding, binding.held, self._settings))]
        if type_ in self._waiting:
            return []
        self._waiting[type_] = now_s + PATIENCE_S
        of_type = [each for each in self._all() if each.type is type_]
        return [each for b in of_type for each in self._apply(b, Came.WANTED, now_s)]

    def _give_back(self, key: GrantKey, now_s: float) -> list[Output]:
        """Nothing uses what is held. What is held at start is so nevertheless."""
        said: list[Output] = []
        for binding in self._all():
            if self._key(binding) != key or binding.held is None or not binding.is_held:
                continue
            if binding.type in self._settings.at_start:
                said.append(Granted(grant_of(self.name, binding, binding.held, self._settings)))
            else:
                said += self._apply(binding, Came.UNWANTED, now_s)
        return said

    def _receive(self, data: bytes, sender: str, now_s: float) -> list[Output]:
        """A message counts if it answers the exchange of a binding; others change nothing."""
        try:
            message = parsed(data, self._codes)
        except MalformedError:
            return []
        binding = asker_of(message, self._bindings.values(), self._duid)
        router = router_of(sender)
        if binding is None or router is None:
            return []
        if message.sol_max_rt_s in _SOL_MAX_RT:
            self._sol_max_rt_s = float(message.sol_max_rt_s or 0)
            for each in self._bindings.values():
                each.follow(self._exchange_of(each.state))
        if binding.state is State.RELEASING:
            return self._apply(binding, Came.ANSWERED, now_s)
        found = judged(message, wish_of(binding, self._settings))
        if found is None:
            return []
        is_offer = message.kind is Kind.ADVERTISE
        refused = binding.state is State.SOLICITING and found.came not in (Came.GIVEN, Came.WRONG)
        if is_offer or refused:
            return self._collect(binding, found, now_s)
        if found.came is Came.GIVEN and found.prefix and found.ia_pd:
            new = held(found.prefix, found.ia_pd, router, now_s)
            return self._apply(binding, found.came, now_s, found, new)
        return self._apply(binding, found.came, now_s, found)

    def _collect(self, binding: Binding, found: Judged, now_s: float) -> list[Output]:
        """Advertises of the first second are compared, later ones taken as they come (18.2.1)."""
        schedule = binding.schedule
        if found.came is Came.GIVEN:
            best = binding.best
            if best is None or found.message.preference > best.message.preference:
                binding.best = found
            if found.message.preference == _TAKE_ME or (schedule and schedule.sent > 1):
                return self._apply(binding, Came.OFFERED, now_s)
        else:
            binding.misfit = found
            if schedule and schedule.sent > 1:
                return self._apply(binding, Came.REFUSED, now_s)
        return []

    # --- what comes of it ---

    def _apply(
        self,
        binding: Binding,
        came: Came,
        now_s: float,
        found: Judged | None = None,
        given: Held | None = None,
    ) -> list[Output]:
        """One step of the table."""
        if (after := TRANSITIONS[binding.state].get(came)) is None:
            return []
        said: list[Output] = []
        why = found or binding.misfit
        before = binding.held
        binding.note(came, found, given)
        if Do.WITHDRAW in after.do:
            said.append(Withdrawn(self._key(binding), at_once=True))
            cause = why.cause if why else _CAUSES.get(came, "")
            outcome = Outcome.RELEASED if came is Came.UNWANTED else Outcome.WITHDRAWN
            network = binding.held.network if binding.held else None
            said.append(Noted(outcome, binding.type, network, cause))
        if Do.GRANT in after.do and given is not None:
            said.append(self._noted_grant(binding, given, before, now_s))
            self._waiting.pop(binding.type, None)
            said.append(Granted(grant_of(self.name, binding, given, self._settings)))
        if Do.FAIL in after.do and why is not None:
            said += self._fail(binding.type, why.cause, why.kind, self._took_s(binding, now_s))
        if came is Came.WRONG:
            self._not_before[binding.type] = now_s + WRONG_AGAIN_S
        if after.state is not binding.state:
            self._enter(binding, after, now_s)
        return said

    def _enter(self, binding: Binding, after: Next, now_s: float) -> None:
        """The state that follows, and its exchange."""
        exchange = self._exchange_of(after.state)
        if exchange is not None and exchange.to_one and binding.server is None:
            after = Next(State.ENDED)  # whom to give it back to is not known: it will lapse
        binding.enter(after.state, now_s + after.after_s)
        if after.state not in ASKING:
            binding.asked_s = None
        elif after.state is State.SOLICITING and binding.asked_s is None:
            binding.asked_s = now_s
        if after.state is State.ENDED:
            del self._bindings[binding.iaid]
        elif exchange is not None:
            binding.schedule = timing.begun(exchange, now_s + after.after_s, self._random)
            if exchange.kind is not None:
                binding.xid = self._new_xid()

    def _exchange_of(self, state: State) -> Exchange | None:
        exchange = EXCHANGES.get(state)
        if exchange is not None and state is State.SOLICITING:
            return replace(exchange, mrt_s=self._sol_max_rt_s)
        return exchange

    def _fail(
        self, type_: AddressType, cause: str, kind: Failure, took_s: float | None = None
    ) -> list[Output]:
        """Say so, and tell who waits, if somebody does."""
        said: list[Output] = []
        is_news = self._troubles.get(type_) != cause
        self._troubles[type_] = cause
        expected = self._expected.pop(type_, None)
        waited = self._waiting.pop(type_, None)
        if waited is not None or expected is not None or is_news:
            asked = waited is not None
            said.append(Noted(Outcome.FAILED, type_, None, cause, took_s, kind, asked))
        if waited is not None:
            text = f"{self._settings.name}: no prefix is {type_.word}: {cause}"
            said.append(Failed((type_, Family.IPV6), text, kind))
        return said

    def _noted_grant(
        self, binding: Binding, given: Held, before: Held | None, now_s: float
    ) -> Noted:
        self._troubles.pop(binding.type, None)
        self._expected.pop(binding.type, None)
        same = before is not None and before.network == given.network
        outcome = Outcome.RENEWED if same else Outcome.GRANTED
        asked = binding.type in self._waiting
        took_s = self._took_s(binding, now_s)
        return Noted(outcome, binding.type, given.network, took_s=took_s, asked=asked)

    def _took_s(self, binding: Binding, now_s: float) -> float | None:
        return None if binding.asked_s is None else now_s - binding.asked_s

    def _pass_time(self, now_s: float) -> list[Output]:
        said: list[Output] = []
        for type_, until_s in list(self._waiting.items()):
            if until_s <= now_s:
                cause = _SILENT if self._up else f"{self._settings.interface} has no link"
                said += self._fail(type_, cause, Failure.TIMED_OUT, PATIENCE_S)
        for type_, until_s in list(self._expected.items()):
            if until_s <= now_s:
                said += self._fail(type_, _SILENT, Failure.TIMED_OUT, PATIENCE_S)
        for binding in self._all():
            while (came := binding.due(now_s)) is not None:
                said += self._apply(binding, came, now_s)
        for binding in self._all():
            if binding.state in ASKING and not self._is_wanted(binding.type, now_s):
                said += self._apply(binding, Came.UNWANTED, now_s)
        if self._up:
            said += self._begin_wanted(now_s)
        self._seen_s = now_s
        return said + self._send(now_s)

    def _is_wanted(self, type_: AddressType, now_s: float) -> bool:
        """Whether a prefix is to be asked for: also if one is held that is to go soon."""
        return (
            type_ in self._waiting
            or type_ in self._settings.at_start
            or any(b.type is type_ and b.is_deprecated(now_s) for b in self._all())
        )

    def _begin_wanted(self, now_s: float, delay_s: float = 0.0) -> list[Output]:
        """Begin to ask for what is wanted and neither held nor asked for."""
        said: list[Output] = []
        for type_ in sorted(self._settings.types):
            of_type = [each for each in self._all() if each.type is type_]
            if not self._is_wanted(type_, now_s) or any(b.will_serve(now_s) for b in of_type):
                continue
            if len(self._bindings) >= MOST_BINDINGS:
                said += self._fail(type_, _FULL, Failure.REFUSED)
                continue
            begin_s = max(now_s + delay_s, self._not_before.get(type_, now_s))
            iaid = self._free_iaid(type_)
            self._bindings[iaid] = binding = Binding(iaid, type_, begin_s=begin_s)
            if type_ in self._waiting:
                said += self._apply(binding, Came.WANTED, now_s)
            elif type_ in self._settings.at_start:
                self._expected[type_] = begin_s + PATIENCE_S
        return said

    def _send(self, now_s: float) -> list[Output]:
        """What is due, as far as the limit allows."""
        said: list[Output] = []
        for binding in sorted(self._all(), key=lambda each: each.send_s):
            if binding.send_s > now_s or self._limit.free_s > now_s:
                break
            message = message_of(binding, self._settings, self._duid, now_s)
            if message is not None and binding.schedule is not None:
                binding.schedule = binding.schedule.after_sending(now_s, self._random)
                self._limit.note(now_s)
                said.append(Send(packed(message, self._codes), SERVERS))
        return said

    # --- names ---

    def _all(self) -> list[Binding]:
        return list(self._bindings.values())

    def _key(self, binding: Binding) -> GrantKey:
        return key_of(self.name, binding)

    def _free_iaid(self, type_: AddressType) -> int:
        """The lowest that is free: who asks for one thing again asks by the same number."""
        first = self._settings.first_instance
        iaids = (iaid_of(type_, first + i) for i in range(MOST_BINDINGS))
        return next(iaid for iaid in iaids if iaid not in self._bindings)

    def _new_xid(self) -> int:
        taken = {each.xid for each in self._bindings.values()}
        while (xid := self._random.getrandbits(24)) in taken:
            pass
        return xid


_SILENT: Final = "no server answers"
_NOT_NAMED: Final = "the configuration does not name it any more"
_FULL: Final = f"{MOST_BINDINGS} prefixes are held or are being given back"
#: Why a prefix is held no more, where no message says so.
_CAUSES: Final = {Came.EXPIRED: "it is not valid any more, and no server has made it longer"}
