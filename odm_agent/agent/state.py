"""What the service is made of: the configuration in force and everything opened for it."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from odm_agent.agent import carriers
from odm_agent.agent.address_book import AddressBook
from odm_agent.agent.bell import Bell
from odm_agent.agent.cgroup_book import CgroupBook
from odm_agent.agent.cgroups import MOST_PIECES, PIECE, UNDECIDED, Changes, ClassifiedCgroups
from odm_agent.agent.configured import compiled, duid_of, read_config
from odm_agent.agent.counts import Counts
from odm_agent.agent.delegations import Delegations
from odm_agent.agent.engine import Engine
from odm_agent.agent.event_log import EventLog
from odm_agent.agent.handover_book import HandoverBook
from odm_agent.agent.host_settings import HostSettings
from odm_agent.agent.lease_book import LeaseBook
from odm_agent.agent.network_notes import NetworkNotes
from odm_agent.agent.numbering import Numbering
from odm_agent.agent.requests import Requests
from odm_agent.agent.usage_book import UsageBook
from odm_agent.config.schema import Config
from odm_agent.core import tables
from odm_agent.core.errors import ConfigError, DatapathError, KernelError
from odm_agent.core.events import Dirty
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import AddressType, ClassPolicy, TypedPrefix
from odm_agent.core.numbering import NoNumberError
from odm_agent.datapath import catalogue
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import pins, swap, tracepoints
from odm_agent.datapath.maps.ring import Ring
from odm_agent.datapath.maps.writer import MapWriter
from odm_agent.journal import Journal
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.kernel.sock_diag import cgroups_with_sockets
from odm_agent.prefixes.table import PrefixTable

log = logging.getLogger(__name__)

#: Nothing should ever need it: a look at all cgroups even if no event came.
_LOOK_S: Final = 60.0
#: How many pieces of cgroups one pass looks at while root's are among them.
_PIECES: Final = 4


@dataclass
class Reloads:
    """How configuration loads went since the start; `loaded` is the last good one, Unix seconds."""

    ok: int = 0
    failed: int = 0
    loaded: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Attachments:
    """Programs that aren't attached (any more), and such as are, but whose pins can't be found."""

    absent: tuple[str, ...]
    hidden: tuple[str, ...]
    #: Whether those that are absent might be attached all the same: neither pins nor the cgroup can
    #: be looked at (a file system was mounted over them).
    uncertain: bool = False


@dataclass
class State:
    """Everything that lives as long as the agent; `startup.open_state` makes it."""

    path: Path
    config: Config
    journal: Journal
    kernel: NetlinkKernel
    datapath: MapWriter
    engine: Engine
    cgroups: ClassifiedCgroups
    attached_to: Path
    netns_cookie: int
    counts: Counts
    ring: Ring
    addresses: AddressBook
    leases: LeaseBook
    usage: UsageBook
    cgroup_book: CgroupBook
    host_settings: HostSettings
    handovers: HandoverBook
    #: What the configuration in force names.
    configured: tuple[TypedPrefix, ...]
    #: What an agent before this one held.
    held: tuple[Lease, ...]
    numbering: Numbering
    #: Whether the programs classify new cgroups, and forget those that the kernel lets go of.
    programs_follow: bool = False
    #: Whether cgroups may have gone while no program of ours was there to see it.
    unseen: bool = False
    #: Why the programs don't know all patterns and cgroups that they should; None: they do.
    not_followed: str | None = None
    #: Whether they know all as of the last look at everything.
    _programs_know: bool = False
    #: When that began, and how many pieces ago.
    _looked_s: float = float("-inf")
    _pieces: int = 0
    #: Rows that might have been written too late for the programs to remove them, and when that was
    #: last looked at.
    _doubtful: set[int] = field(default_factory=set)
    _doubted_s: float = float("-inf")
    #: Whether there are cgroups that `converge` has not looked at yet.
    is_behind: bool = False
    #: Whether all is looked at that root has made, and of what others make as much as fits into a
    #: number of pieces: they may make more for ever.
    is_settled: bool = False
    #: Why new cgroups are not noticed everywhere; None: they are.
    unwatched: str | None = None
    #: What of the agent's work failed the last time (its name -> why), and is tried again.
    troubles: dict[str, str] = field(default_factory=dict)
    #: Whether a program refuses packet and XDP sockets at their creation; not on every kernel.
    at_creation: bool = False
    #: What was replaced at the start; None: the programs in force were taken over.
    replaced: swap.Replaced | None = None
    #: How often an address took another one's place, by the prefix's name and type, and why.
    rotations: Counter[tuple[str, AddressType, Cause]] = field(default_factory=Counter)
    #: The table as the kernel and the hooks have it since the last pass; `bell` is rung with each.
    carried_out: PrefixTable = field(init=False)
    bell: Bell = field(default_factory=Bell)
    #: The networks that are asked for prefixes, and what they have answered.
    delegations: Delegations = field(default_factory=Delegations)
    network_notes: NetworkNotes = field(default_factory=NetworkNotes)
    #: By what they know this host; None: none is asked.
    duid: bytes | None = None
    #: What happened lately.
    events: EventLog = field(default_factory=EventLog)
    #: What the sources were asked for.
    requests: Requests = field(init=False)
    started: float = field(default_factory=time.time)
    reloads: Reloads = field(default_factory=Reloads)
    #: The programs (name -> id) as they were when their pins were last seen.
    programs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What is in force is of the table that it was opened with."""
        self.carried_out = self.engine.table
        self.requests = Requests(self.events)

    def close(self) -> None:
        """Close what is open here; what is in the kernel stays, and goes on enforcing."""
        self.delegations.close()
        self.cgroups.close()
        self.ring.close()
        self.datapath.close()
        self.kernel.close()
        self.journal.close()

    def converge(
        self,
        dirty: Dirty = Dirty.ALL,
        serving: Callable[[], object] = lambda: None,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> bool:
        """One pass over what may have changed; whether anything was changed by us.

        `serving` is called when sockets are given something else, `gives_way` as in
        `Engine.converge`. Raises OdmError.
        """
        self.leases.write()
        self.cgroup_book.record()
        self.is_behind = False
        is_new = self._watch_cgroups(again=dirty == Dirty.ALL) if Dirty.CGROUPS in dirty else False
        changed = False
        if Dirty.KERNEL in dirty:
            if not self.engine.host.links:
                self.engine.host = self.kernel.read()
            self.host_settings.change(self.engine.table, self.engine.host)
            changed = self._project(serving, gives_way, anew=dirty == Dirty.ALL)
            self.host_settings.change(self.engine.table, self.engine.host)
            # The programs count on it only while it is there.
            self.datapath.count_on_nonlocal_bind(self.host_settings.nonlocal_bind)
            self.host_settings.put_back(self.engine.table, self.engine.host)
        elif is_new:
            changed = self.engine.reclassify()  # a class is there before cgroups of it
        if Dirty.CGROUPS in dirty:
            changed |= self._follow_cgroups()
            self.is_behind = self.cgroups.is_behind
            enough = not self.is_behind or self._pieces > MOST_PIECES
            self.is_settled = not self.cgroups.is_behind_root and enough
        self._forget_gone()
        return changed

    def classify(self, path: Path) -> None:
        """Give one cgroup its class before all others that wait. Raises OdmError."""
        self.cgroups.visit(path)
        self.converge(Dirty.CGROUPS)

    def _follow_cgroups(self) -> bool:
        """Some pieces of what there is to be looked at; whether maps changed.

        What others than root have brought about waits, after a piece of it, for the next call.
        """
        changed = False
        self.programs_follow = tracepoints.in_force(Path(self.config.agent.pin_dir))
        for _ in range(_PIECES):
            changed |= self._place(self.cgroups.step(PIECE, self.datapath, seen=self._seen))
            self._let_programs_follow()
            self.cgroups.told()
            self._pieces += 1
            if not self.cgroups.is_behind_root:
                break
        if not self.cgroups.is_behind_root:
            changed |= self._place(self.cgroups.forget_leaving(self.datapath, cgroups_with_sockets))
            self.unseen = False
        if (reserved := self.cgroups.reserved()) != self.engine.reserved:
            self.engine.reserved = reserved
            changed |= self.engine.reclassify()
        return changed

    @property
    def _seen(self) -> bool:
        return self.programs_follow and not self.unseen

    def _place(self, changes: Changes) -> bool:
        changed = self.engine.place(changes.rows)
        self.datapath.add_members(changes.members)
        self.datapath.let_go(changes.released)
        return changed

    def _project(
        self, serving: Callable[[], object], gives_way: Callable[[], bool], *, anew: bool
    ) -> bool:
        """Bring kernel and maps to what table and cgroups say; whether anything was changed."""
        self.addresses.write(self.engine.table)  # before anybody uses the new ones
        changed = self.engine.converge(serving, gives_way, anew=anew)
        self.addresses.write(self.engine.table)  # what duplicate address detection found
        if not self.engine.interrupted:
            self.carried_out = self.engine.table
            self.bell.ring()
        return changed

    @property
    def unfinished(self) -> bool:
        """Whether something could not be done that may be possible in a moment."""
        trouble = self.addresses.trouble or self.leases.trouble or self.host_settings.trouble
        trouble = trouble or self.cgroup_book.trouble or self.unwatched
        return bool(not self.engine.is_at_rest or self.troubles or trouble)

    def _watch_cgroups(self, *, again: bool) -> bool:
        """Look where patterns lead; whether they are others. The programs classify new cgroups, and
        now and then all is looked at, so this may fail. `again`: what failed is tried again.
        """
        is_new = False
        try:
            is_new = self.cgroups.follow(self.engine.classes)
            failed = again and (self.unwatched or self.not_followed)
            if is_new or failed or time.monotonic() - self._looked_s >= _LOOK_S:
                self._looked_s = time.monotonic()
                self._pieces = 0
                self._programs_know = False
                rows, classes = self.datapath.look_again(), self.datapath.read().classes
                self.cgroup_book.write(rows, classes)
                self.cgroups.take_over(rows, classes)
                self.datapath.count_members(self.engine.classes)
                self.engine.cgroups = self.cgroups.rows
                if not is_new:
                    self.cgroups.look_again()
            self.unwatched = self.cgroups.trouble
        except KernelError as error:  # no watch is left, say
            self.unwatched = str(error)
        self.engine.reserved = self.cgroups.reserved()
        return is_new

    def _let_programs_follow(self) -> None:
        """Tell the programs of new folders; of all once, and of other patterns, after all of root's
        was looked at.
        """
        cgroups = self.cgroups
        if self._programs_know:
            folders = cgroups.new_folders()
        elif cgroups.knows_folders:
            folders = cgroups.folders()
        else:
            return
        if self._programs_know and not folders:
            return
        try:
            self.datapath.follow(cgroups.automaton, folders, cgroups.is_gone)
        except DatapathError as error:  # a map is full
            if self.not_followed is None:
                log.warning("new cgroups wait for the agent", extra={"error": str(error)})
            self.not_followed = str(error)
        else:
            if not self._programs_know:
                self.not_followed = None
            self._programs_know = True

    def _forget_gone(self) -> None:
        """A row that was written after the kernel let go of its cgroup would stay for ever."""
        gone = {n for n in self.datapath.newly_written() if self.cgroups.is_gone(n)}
        now = time.monotonic()
        if not gone and not (self._doubtful and now - self._doubted_s >= _LOOK_S):
            return
        self._doubted_s = now
        with_sockets = cgroups_with_sockets()
        self._doubtful = (self._doubtful | gone) - with_sockets
        for cgroup_id in self.cgroups.needed_by_none(self._doubtful, self.datapath, with_sockets):
            self.datapath.apply(tables.CGROUPS.drop(cgroup_id))
            self._doubtful.discard(cgroup_id)

    def attachments(self) -> Attachments:
        """What of our programs is attached to the cgroup of that name.

        A cgroup that was removed has taken its links with it, also if there is one again.
        Raises DatapathError.
        """
        pin_dir = Path(self.config.agent.pin_dir)
        links = pins.attached(pin_dir)
        links = {name: x for name, x in links.items() if x.cgroup_id}  # else its cgroup is gone
        try:
            cgroup_id = self.attached_to.stat().st_ino
        except OSError:
            lost = tuple(name for name in catalogue.CGROUP if name not in links)
            return Attachments(lost, (), uncertain=not pins.links_folder(pin_dir).is_dir())
        seen = {name: x.prog_id for name, x in links.items() if x.cgroup_id == cgroup_id}
        self.programs = {**self.programs, **seen}  # others may be reading
        lacking = {name: x for name, x in self.programs.items() if name not in seen}
        hidden = pins.still_attached(self.attached_to, lacking)
        absent = (name for name in catalogue.CGROUP if name not in seen and name not in hidden)
        return Attachments(tuple(absent), tuple(hidden))

    def lost_creation(self) -> bool:
        """Whether the program at the creation of sockets was there, and isn't any more."""
        return self.at_creation and not creation.in_force(Path(self.config.agent.pin_dir))

    def record_usage(self) -> None:
        """Write down what was sent. Raises DatapathError."""
        datapath = self.datapath
        self.usage.write(datapath.traffic(), self.class_names, datapath.meters(), time.time())

    def record_cgroups(self) -> None:
        """Write down of which class cgroups are now. Raises DatapathError."""
        self.cgroup_book.write(self.datapath.classified(), self.datapath.read().classes)

    def correct_counts(self) -> None:
        """Hold the programs' counts of sockets against the sockets that there are."""
        self.counts.correct(self.datapath.read().sources)

    def take(self, config: Config) -> None:
        """Make a checked configuration the one in force, but for its prefixes: `configured` has
        them, and is for the static source.

        Raises ConfigError or JournalError, and then nothing has changed.
        """
        duid = duid_of(config)
        try:
            prefixes, classes = self._compiled(config)
        except NoNumberError:
            self.free_numbers()
            prefixes, classes = self._compiled(config)
        self.configured = prefixes
        self.duid = duid
        self.engine.classes = classes
        self.taken(config)

    def taken(self, config: Config) -> None:
        """Note that a configuration is in force now."""
        self.config = config
        self.reloads.ok += 1
        self.reloads.loaded = time.time()
        self.reloads.error = None

    @property
    def class_names(self) -> dict[int, str]:
        """What the numbers of classes stand for, since verdicts outlive the configuration."""
        return {**self.numbering.names("class"), UNDECIDED.id: f"({UNDECIDED.name})"}

    def free_numbers(self) -> None:
        """Let numbers be given anew that nothing has carried for long. Raises OdmError."""
        in_force = self.datapath.settings.patterns == self.cgroups.automaton.generation
        if not in_force or not self.numbering.any_retired:  # else new cgroups may get old classes
            return
        carried = carriers.carried(self.datapath, self.engine.host, self.engine.numbers)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.numbering.survey(carried, now, self.datapath.forget_number)

    def _compiled(self, config: Config) -> tuple[tuple[TypedPrefix, ...], dict[int, ClassPolicy]]:
        with self.numbering.configuration() as draft:
            return compiled(config, draft, self.journal.prefixes_by_interface())

    def reload(self) -> list[str]:
        """Read the file again; its warnings. Raises OdmError, and the last good one stays."""
        try:
            config, warnings = read_config(self.path, self.kernel)
            self._refuse_moving(config)
            self.take(config)
        except Exception as error:
            self.reloads.failed += 1
            self.reloads.error = str(error)
            raise
        return warnings

    def _refuse_moving(self, config: Config) -> None:
        """Where things are kept, and which numbers are used, can't change under way."""
        moved = [
            key
            for key in config.agent.__struct_fields__
            if key != "log_level" and getattr(config.agent, key) != getattr(self.config.agent, key)
        ]
        if moved:
            raise ConfigError(
                f"{self.path}: agent.{', agent.'.join(moved)} can't change while the agent runs;"
                " run `odm-agent detach` and start it again, or put the old value back"
            )
