"""Brings kernel and maps to what the typed prefix table says; the service drives it."""

import logging
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableSet,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.agent.repairs import vanished
from odm_agent.config.advice import Gateways
from odm_agent.core import tables
from odm_agent.core.actions import (
    ADDITIONS,
    Action,
    AddAddress,
    DatapathAction,
    KernelAction,
    RemoveAddress,
)
from odm_agent.core.errors import DatapathError, OdmError
from odm_agent.core.host import Address, HostState, LocalAddress
from odm_agent.core.model import ClassPolicy, Family, IPAddress
from odm_agent.core.projection import CgroupRow, Projection
from odm_agent.core.tables import Drop, Put
from odm_agent.datapath.base import Datapath
from odm_agent.kernel.base import Kernel
from odm_agent.prefixes import selection, untyped
from odm_agent.prefixes.managed import followed
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.precedence import Typed, obstacles
from odm_agent.prefixes.routing import theirs_inside
from odm_agent.prefixes.table import PrefixTable
from odm_agent.reconcile.additions import foreseen, parted, with_done
from odm_agent.reconcile.failure import still_safe, together
from odm_agent.reconcile.planning import classify, plan
from odm_agent.reconcile.projections import classified, desired, observe

log = logging.getLogger(__name__)

#: Each round can only wait for what the one before has made; a healthy host takes four.
_MOST_ROUNDS = 8

#: What hooks go by when they hand out an address.
_HANDED_OUT: Final = (tables.PREFIXES, tables.CHOICES)

#: What the kernel goes by when it tells an application what becomes of its address.
_NOTICED: Final = frozenset(
    (*_HANDED_OUT, tables.SEATS, tables.LEASES, tables.SOURCES, tables.SPANS, tables.CLASSES)
)

#: A map that is full may refuse thousands of rows.
_MOST_ALARMS = 10


@dataclass
class Engine:
    """The table and the two places that it is projected to.

    `reserved` are classes that are not configured, but that cgroups may be of.
    `probed` holds the on-link IPv4 addresses that no other host was found to use (RFC 5227); the
    others wait in `to_probe` and are not configured until somebody says `probe_ended`.
    """

    kernel: Kernel
    datapath: Datapath
    numbers: Numbers
    table: PrefixTable
    classes: Mapping[int, ClassPolicy] = field(default_factory=dict)
    cgroups: Mapping[int, CgroupRow] = field(default_factory=dict)
    reserved: Mapping[int, ClassPolicy] = field(default_factory=dict)
    host: HostState = field(default_factory=HostState)
    failures: list[str] = field(default_factory=list)
    probed: set[IPAddress] = field(default_factory=set)
    to_probe: set[Address] = field(default_factory=set)
    #: Called before each look at the kernel, which will see what has happened until then: whether
    #: anything has since the last time. What it does not hear of is found by passes `anew`.
    has_news: Callable[[], bool] = lambda: True
    #: Called when what sockets are given, or how long they keep it, has changed.
    on_change: Callable[[], object] = lambda: None
    #: Whether the last pass was interrupted; the next one goes on with `host` as it is.
    interrupted: bool = False
    #: Adds what the kernel doesn't tell to what it has told.
    hinted: Callable[[HostState], HostState] = lambda host: host
    #: Whether `host` is not all that was read: it has what was done since, and lacks what is news.
    _assumed: bool = False
    #: Whether this pass plans for what is there only when it has been done.
    _foresees: bool = False
    #: What was found when nothing was left to do; None: not yet.
    _rest: Projection | None = None
    _vanished: list[str] = field(default_factory=list)
    #: The failures of the pass that runs; between two, `failures`.
    _failing: list[str] = field(default_factory=list)
    #: The alarms that last, and of which table and host.
    _alarmed: tuple[PrefixTable | None, HostState | None, tuple[str, ...]] = (None, None, ())

    def __post_init__(self) -> None:
        self._failing = self.failures

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing was left to do when it was last looked."""
        return self._rest is not None

    def converge(
        self,
        serving: Callable[[], object] = lambda: None,
        gives_way: Callable[[], bool] = lambda: False,
        *,
        anew: bool = True,
    ) -> bool:
        """Read, plan and apply until nothing is left to do now; whether anything was done.

        What was found when nothing was left to do still holds if there are no news since, and is
        not read again, unless that is to be done `anew`.
        What could not be done is in `failures`, and is tried again the next time. `serving` is
        called when hooks hand out something else, and nothing has failed: of what follows, to see
        that nothing is left to do is the most, and nobody has to wait for it.
        `gives_way` is called when all of the kernel was read, before anything is done to it, and
        when that is done: whether the pass ends there. The next one goes on with what was read, and
        does something before it gives way.
        """
        changed = self._converged(serving, gives_way, anew=anew)
        if not self.interrupted:
            self._look_for_alarms()
        return changed

    def _converged(
        self, serving: Callable[[], object], gives_way: Callable[[], bool], *, anew: bool
    ) -> bool:
        known, self._failing = set(self.failures), []
        self._foresees = True
        try:
            return self._until_done(known, serving, gives_way, anew=anew)
        finally:  # who asks for alarms meanwhile hears those of the pass before
            if self.interrupted:
                self._failing = self.failures
            else:
                self.failures = self._failing

    def _until_done(
        self,
        known: MutableSet[str],
        serving: Callable[[], object],
        gives_way: Callable[[], bool],
        *,
        anew: bool,
    ) -> bool:
        rest, self._rest = self._rest, None
        goes_on, self.interrupted = self.interrupted, False
        changed, added = False, list[KernelAction]()
        look = (not goes_on and (anew or rest is None)) or self.has_news()
        if not look:
            self._take(self.host)
        for _ in range(_MOST_ROUNDS):
            if look:
                self._look(added)
            if (all_read := look and not added) and gives_way():
                self._rest, self.interrupted = rest, True
                return changed
            maps = self.datapath.read()
            host = self._foreseen(maps)
            goal = desired(self.table, self._policies, self.cgroups, host, self.numbers)
            now = observe(self.host, maps)
            if rest is not None:
                self._vanished += vanished(rest, goal, now)
                rest = None
            actions = self._unless_unprobed(plan(goal, now, self.host))
            if not actions and self._assumed:
                added, look = [], True  # what was done was taken to be there: now all is looked at
                continue
            if not actions:
                self._rest = now
                return changed
            if all_read and gives_way():
                self.interrupted = True
                return changed
            if (is_foreseen := host is not self.host) and actions:
                additions, actions = parted(actions)
                if not self._comes_true(additions, host, known):
                    changed, look, added = True, True, []
                    continue
            self._execute(actions, known)
            if self._failing:
                return True  # the same plan would fail again; the next event or timer retries
            changed = True
            if any(isinstance(each, Put) and each.table in _HANDED_OUT for each in actions):
                serving()
            # Rows of maps change nothing of what the kernel holds.
            asked = [action for action in actions if isinstance(action, KernelAction)]
            if gives_way():
                self._assumed |= self.has_news()  # as a rule those of what was just done
                self._assume(asked)
                self.interrupted = True
                return changed
            look = bool(asked or added or is_foreseen)
            added = asked if _waits_for_addresses(asked) else []
        log.warning("not converged yet; going on at the next event", extra={"rounds": _MOST_ROUNDS})
        return changed

    def _foreseen(self, maps: Projection) -> HostState:
        """The host for which is planned. Once in a pass, prefixes that are new are counted in."""
        if not self._foresees:
            return self.host
        self._foresees = False
        return foreseen(self.table, maps.prefixes, self.host, self.numbers)

    def _comes_true(self, additions: list[Action], host: HostState, known: MutableSet[str]) -> bool:
        """Carry out what a plan adds; whether the kernel holds then all that was foreseen. Else
        what is offered is planned again, for what there is.
        """
        there = {each.address for each in self.host.addresses}
        self._execute(additions, known)
        if self._failing:
            known |= set(self._failing)
            self._failing.clear()
            return False
        self._assume([each for each in additions if isinstance(each, KernelAction)])
        return self.host.ready.issuperset(
            each.address for each in host.addresses if each.address not in there
        )

    def _look(self, added: Sequence[KernelAction]) -> None:
        """Read the kernel: all of it, or, after plans that only `added` to it, the addresses alone.

        These have to become ready; routes and rules are there when the kernel has taken them. A
        pass ends with a look at all of it, whatever came before.
        """
        if added:
            self._assume(added)
        else:
            self.has_news()
            self._assumed = False
            self._take(self.kernel.read())

    def _assume(self, done: Sequence[KernelAction]) -> None:
        """Take what was carried out to be there, but for addresses, which have to become ready."""
        addresses: Sequence[LocalAddress] = self.host.addresses
        if any(isinstance(each, AddAddress | RemoveAddress) for each in done):
            addresses = self.kernel.read_addresses(self.host.links)
        self.host = with_done(self.host, done, addresses)
        self._assumed |= bool(done)
        self._follow()

    def glance(self) -> HostState | None:
        """The host with its links as they are now, before anything else is looked at; None: they
        are as they were.
        """
        links = self.kernel.read_links()
        if links == self.host.links:
            return None
        return replace(self.host, links=links, addresses=self.kernel.read_addresses(links))

    def _take(self, host: HostState) -> None:
        """All that the kernel tells, with what it doesn't."""
        self.host = self.hinted(host)
        self._follow()

    def _follow(self) -> None:
        self.table = followed(self.table, self.host)
        self._note_conflicts()

    def reclassify(self) -> bool:
        """The same for classes and cgroups alone, if all else is at rest: it reads nothing."""
        if self._rest is None:
            return self.converge()
        rest, self._rest = self._rest, None
        goal, now = classified(self._policies, self.cgroups, self.host), self.datapath.read()
        self._vanished += vanished(rest, goal, now)
        actions = list(classify(goal, now))
        self._execute(actions)
        if not self.failures:
            now = self.datapath.read()
            self._rest = replace(rest, classes=now.classes, cgroups=now.cgroups, guards=now.guards)
        return bool(actions)

    def place(self, changed: Mapping[int, CgroupRow | None]) -> bool:
        """Write the rows of some cgroups (None: remove them), which `cgroups` has already.

        Whether there was anything to do; what could not be done is in `failures`.
        """
        actions: list[Action] = [
            tables.CGROUPS.drop(number) if row is None else tables.CGROUPS.put(number, row)
            for number, row in changed.items()
        ]
        known = len(self.failures)
        self._execute(actions, set(self.failures))
        if len(self.failures) > known:
            self._rest = None
        elif self._rest is not None:
            for number, row in changed.items():
                if row is None:
                    self._rest.cgroups.pop(number, None)
                else:
                    self._rest.cgroups[number] = row
        return bool(actions)

    @property
    def _policies(self) -> dict[int, ClassPolicy]:
        return {**self.classes, **self.reserved}

    def take_vanished(self) -> list[str]:
        """What had gone without us since this was last asked, and is put back."""
        found, self._vanished = self._vanished, []
        return found

    def all_usable(self) -> bool:
        """Every address of the table is ready, or there is a reason why it won't be soon."""
        ready = {a.address for a in self.host.addresses if a.ready or a.failed}
        return not self.to_probe and all(
            address in ready
            for row in self.table
            if selection.absence(row, self.host) is None
            for address in row.configured
        )

    def probe_ended(self, address: Address, *, in_use: bool) -> None:
        """What the conflict check of an on-link IPv4 address said."""
        self.to_probe.discard(address)
        if in_use:
            log.warning("another host uses an address", extra={"address": str(address.address)})
            self.table = self.table.with_conflict(address.address)
        else:
            self.probed.add(address.address)

    def _look_for_alarms(self) -> None:
        """Find the alarms that last until table or host are others: it looks at every address."""
        table, host, _ = self._alarmed
        if table is not self.table or host is not self.host:
            self._alarmed = (self.table, self.host, tuple(self._lasting_alarms()))

    def alarms(self) -> list[str]:
        """What a person should look at, as of the last look at kernel and maps."""
        failures = self.failures
        found = [f"not done: {failure}" for failure in failures[:_MOST_ALARMS]]
        if (more := len(failures) - _MOST_ALARMS) > 0:
            found.append(f"not done: {more} more, most likely for the same reason")
        return [*found, *self._alarmed[2]]

    def _lasting_alarms(self) -> Iterator[str]:
        yield from (f"{row.prefix.name}: {row.trouble}" for row in self.table if row.trouble)
        yield from self._absences()
        gateways = Gateways(self.host)
        for prefix in (row.prefix for row in self.table):
            gateway = prefix.gateway
            if gateway and (trouble := gateways.trouble(prefix.interface, gateway)):
                yield f"{prefix.name}: {trouble}"
        typed = Typed.all_of(self.table, self.numbers)
        for each in obstacles(self.host, typed, self.numbers):
            yield f"{each.what}; {each.remedy}"
        for family in sorted({row.prefix.family for row in self.table}):
            if not self._has_untyped(family):
                yield f"IPv{family} has no untyped address left: sockets of no class can't use it"
        for local in theirs_inside(self.table, self.host):
            yield (
                f"{local.address} on {local.interface} lies in a typed prefix, but the network gave"
                " it to this host: it stays untyped; look who hands it out, or say"
                ' untyped = "allow" for the prefix'
            )
        yield from _of_selection(untyped.shield(self.table, self.host))

    def _absences(self) -> list[str]:
        """The uplinks by which nothing can leave, each with its prefixes.

        Of an uplink of others one IP version is enough: many a network has no other.
        """
        found = [(row.prefix, selection.absence(row, self.host)) for row in self.table]
        serving = {prefix.pattern for prefix, why in found if why is None}
        lost: dict[str, list[str]] = {}
        for prefix, why in found:
            if why is not None and not (prefix.managed and prefix.pattern in serving):
                lost.setdefault(why, []).append(prefix.name)
        return [f"{why}: no address is given of {', '.join(lost[why])}" for why in sorted(lost)]

    def _has_untyped(self, family: Family) -> bool:
        """Whether sockets of no class have an address; also if the host has none at all."""
        held = [
            a for a in self.host.addresses if a.address.version == family and not _local(a.address)
        ]
        foreign = [a for a in held if not a.ours]
        return not held or any(self.table.typed_for(a) is None for a in foreign)

    def _note_conflicts(self) -> None:
        """What IPv6's detection or a lease shows to be in use is replaced by the next one."""
        for local in self.host.addresses:
            taken = local.failed if local.ours else local.from_network
            if taken and self._is_in_pool(local.address):
                log.warning("another host uses an address", extra={"address": str(local.address)})
                self.table = self.table.with_conflict(local.address)

    def _is_in_pool(self, address: IPAddress) -> bool:
        row = self.table.span_of(address)
        return row is not None and not row.prefix.managed and address in row.addresses

    def _unless_unprobed(self, actions: Iterable[Action]) -> list[Action]:
        """An on-link IPv4 address is configured only once no other host was found to use it."""
        kept: list[Action] = []
        self.to_probe = set()
        for action in actions:
            if isinstance(action, AddAddress) and self._wants_probe(action.address):
                if self.host.links[action.address.interface].up:  # else nobody could answer
                    self.to_probe.add(action.address)
            else:
                kept.append(action)
        return kept

    def _wants_probe(self, address: Address) -> bool:
        return (
            address.dad
            and Family.of(address.address) is Family.IPV4
            and address.address not in self.probed
        )

    def _execute(self, actions: list[Action], known: Collection[str] = ()) -> None:
        """In order; after a failure (warned of unless `known`) goes on with what is still safe."""
        start = 0
        while count := together(actions, start):
            tried = actions[start : start + count]
            start += count
            failed = []
            for action, error in zip(tried, self._outcomes(tried), strict=True):
                if error is not None:
                    failed.append(action)
                    self._note_failure(action, error, known)
            if any(map(_is_noticed, tried)):
                self.on_change()
            if failed:
                actions, start = still_safe(failed, actions[start:]), 0

    def _note_failure(self, action: Action, error: OdmError, known: Collection[str]) -> None:
        told = f"{doing}: {error}" if (doing := _recording(action)) else str(error)
        level = logging.DEBUG if told in known else logging.WARNING
        log.log(level, "an action failed", extra={"action": str(action), "error": told})
        self._failing.append(told)

    def _outcomes(self, actions: list[Action]) -> Sequence[OdmError | None]:
        """Carry out what may be tried together; why each could not be done (None: it was)."""
        if log.isEnabledFor(logging.DEBUG):
            for action in actions:
                log.debug("action", extra={"action": str(action)})
        asked = [each for each in actions if isinstance(each, KernelAction)]
        if not asked:
            return [self._written(each) for each in actions if isinstance(each, DatapathAction)]
        outcomes = self.kernel.apply_all(asked)
        for action, error in zip(asked, outcomes, strict=True):
            if error is None and isinstance(action, RemoveAddress):
                self.probed.discard(action.address.address)
        return outcomes

    def _written(self, action: DatapathAction) -> DatapathError | None:
        try:
            self.datapath.apply(action)
        except DatapathError as error:
            return error
        return None


def _of_selection(shield: untyped.Shield) -> Iterator[str]:
    """Where default source selection can't be kept wholly as it is without us."""
    if shield.deprecated:
        yield (
            "the IPv6 addresses of delegated prefixes are deprecated, since the host's own are no"
            " better, or `ip addrlabel` sets them apart from destinations: resolvers of classes put"
            " IPv4 first; give the interface towards the gateway a preferred address"
        )
    for interface in sorted(shield.exposed):
        yield (
            f"IPv6 sockets of no class that leave by {interface} are given a typed address, and"
            f" refused: the host has no other there; give {interface} an address of its own"
        )


def _is_noticed(action: Action) -> bool:
    """Whether it may change what an application is told of its address; new cgroups do not."""
    match action:
        case Put(table):
            return table in _NOTICED
        case Drop(table):
            return table in _NOTICED or table is tables.CGROUPS
        case _:
            return False


def _recording(action: Action) -> str | None:
    """What a row of a map that may be full is about (the kernel's own refusals say it already)."""
    if isinstance(action, Put) and action.table.writing:
        return action.table.writing.format(action.key)
    return None


def _waits_for_addresses(asked: Sequence[KernelAction]) -> bool:
    """Whether a plan goes on as soon as addresses are ready, and has taken nothing away."""
    return any(isinstance(each, AddAddress) for each in asked) and all(
        isinstance(each, ADDITIONS) for each in asked
    )


def _local(address: IPAddress) -> bool:
    return address.is_loopback or address.is_link_local
