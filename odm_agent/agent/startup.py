"""Opening all that the agent works with, and putting programs in force."""

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from odm_agent.agent import privileges
from odm_agent.agent.address_book import AddressBook
from odm_agent.agent.cgroup_book import CgroupBook
from odm_agent.agent.cgroups import ClassifiedCgroups
from odm_agent.agent.configured import compiled, duid_of
from odm_agent.agent.counts import Counts
from odm_agent.agent.engine import Engine
from odm_agent.agent.handover_book import HandoverBook
from odm_agent.agent.host_settings import HostSettings
from odm_agent.agent.lease_book import LeaseBook
from odm_agent.agent.numbering import Numbering
from odm_agent.agent.owner import journal_of
from odm_agent.agent.state import State
from odm_agent.agent.usage_book import UsageBook
from odm_agent.config.schema import Config
from odm_agent.config.values import numbers_of
from odm_agent.core import wandering
from odm_agent.core.errors import ConfigError
from odm_agent.core.holding import Holding
from odm_agent.core.leases import Lease
from odm_agent.core.model import TypedPrefix
from odm_agent.datapath import abi, catalogue
from odm_agent.datapath.base import Sent
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import swap, tracepoints
from odm_agent.datapath.install.deployment import Deployment
from odm_agent.datapath.maps.ring import Ring
from odm_agent.datapath.maps.writer import MapWriter
from odm_agent.journal import Journal
from odm_agent.kernel import cgroups as kernel_cgroups
from odm_agent.kernel.namespace import netns_cookie
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.kernel.sock_diag import cgroups_with_sockets
from odm_agent.kernel.timer import now
from odm_agent.prefixes.memory import Memory
from odm_agent.prefixes.table import PrefixTable
from odm_agent.reconcile.projections import desired

log = logging.getLogger(__name__)


def wanted_by(config: Config) -> Deployment:
    """What programs a configuration wants, and where. Raises OdmError."""
    agent = config.agent
    attached_to = Path(agent.cgroup) if agent.cgroup else kernel_cgroups.find_root()
    if not attached_to.is_dir():
        raise ConfigError(f"agent.cgroup: there is no cgroup {attached_to}; make it, or change it")
    pin_dir = Path(agent.pin_dir)
    return Deployment(pin_dir, attached_to, netns_cookie(), agent.mark_mask, agent.protocol)


def open_state(
    path: Path,
    config: Config,
    *,
    forget_sockets: bool = False,
    before_swap: Callable[[swap.Staged], None] = lambda staged: None,
) -> State:
    """Open everything that a configuration names, loading the programs if they aren't there.

    What can refuse comes first, what is attached last; `before_swap` is called when nothing can
    refuse any more, if programs are to be replaced. Then privileges that are not needed any more
    are given up, for this whole process. Raises OdmError; then nothing of ours is left open.
    """
    wanted = wanted_by(config)
    agent = config.agent
    with ExitStack() as opened:
        journal = journal_of(agent, wanted.netns_cookie)
        opened.callback(journal.close)
        duid = duid_of(config)
        numbers = numbers_of(agent)
        last = min(abi.MAX_PREFIXES - 1, numbers.last_prefix_id)
        numbering = Numbering(journal, {"class": abi.UNDECIDED_CLASS - 1, "prefix": last})
        with numbering.configuration() as draft:
            prefixes, classes = compiled(config, draft, journal.prefixes_by_interface())
        cgroups = ClassifiedCgroups(wanted.cgroup)
        opened.callback(cgroups.close)
        memory = Memory(journal.addresses())
        leases = LeaseBook(journal)
        held = tuple(leases.read(now()))
        table = PrefixTable(journal.secret(), memory=memory, boot=journal.boot).with_only(
            _known(prefixes, held)
        )
        for lease in held:
            if not lease.grant.is_configured:
                numbering.take(lease.grant)
        replaced = None
        unseen = not tracepoints.in_force(wanted.pin_dir)
        if not swap.take_over(wanted):
            keep = Path(agent.cache_dir) if agent.cache_dir else None
            with swap.staged(wanted, keep=keep, forget_sockets=forget_sockets) as staged:
                before_swap(staged)
                if staged.fresh:
                    with NetlinkKernel(agent.protocol) as for_now:
                        host = for_now.read()
                    cgroups.follow(classes)
                    with MapWriter(staged.folder) as maps:
                        maps.resume_meters(_noted(journal, held))
                        _take_over(cgroups, maps, CgroupBook(journal), staged.fresh)
                        cgroups.settle(maps)
                        cgroups.forget_leaving(maps, cgroups_with_sockets)
                        maps.follow(cgroups.automaton, cgroups.folders(), cgroups.is_gone)
                        known = {**classes, **cgroups.reserved()}
                        goal = desired(table, known, cgroups.rows, host, numbers)
                        maps.fill(goal, staged.fresh)
                replaced = staged.commit()
                # What was let go of since it was looked for, no program has removed from a new map.
                unseen |= catalogue.CGROUPS in staged.fresh
        log.info(
            "programs %s",
            "loaded" if replaced else "taken over",
            extra={"cgroup": str(wanted.cgroup), "pins": agent.pin_dir},
        )
        privileges.drop(config)  # before there is a second thread, which is the kernel's
        kernel = NetlinkKernel(agent.protocol)
        opened.callback(kernel.close)
        datapath = MapWriter(wanted.pin_dir)
        opened.callback(datapath.close)
        datapath.resume_meters(_noted(journal, held))
        usage = UsageBook(journal)
        has_new_counters = replaced is not None and "odm_traffic" in replaced.new_maps
        usage.begin(datapath.traffic(), anew=has_new_counters)
        ring = Ring(wanted.pin_dir)
        opened.callback(ring.close)
        engine = Engine(kernel, datapath, numbers, table, classes)
        state = State(
            *(path, config, journal, kernel, datapath, engine, cgroups),
            attached_to=wanted.cgroup,
            netns_cookie=wanted.netns_cookie,
            counts=Counts(datapath),
            ring=ring,
            addresses=AddressBook(journal, memory),
            leases=leases,
            usage=usage,
            cgroup_book=CgroupBook(journal),
            host_settings=HostSettings(journal, agent.nonlocal_bind),
            handovers=HandoverBook(journal),
            configured=prefixes,
            duid=duid,
            held=held,
            numbering=numbering,
            unseen=unseen,
            at_creation=creation.in_force(wanted.pin_dir),
            replaced=replaced,
        )
        state.taken(config)
        state.attachments()  # their ids, while their pins are there
        journal.flush()  # the secret, above all
        opened.pop_all()
        return state


def _noted(journal: Journal, held: Iterable[Lease]) -> dict[int, Sent]:
    """What leases had sent when that was last written down, by their ids. Raises JournalError."""
    ids = {each.id for lease in held for each in lease.addresses}
    return {n: Sent(*each) for n, each in journal.meters().items() if n in ids}


def _take_over(
    cgroups: ClassifiedCgroups, maps: MapWriter, noted: CgroupBook, fresh: frozenset[str]
) -> None:
    """Begin with what the maps in force say; of those that are fresh, with what was noted."""
    rows = noted.rows() if catalogue.CGROUPS in fresh else {}
    cgroups.take_over({**rows, **maps.classified()}, {**noted.classes(), **maps.read().classes})


def _known(prefixes: Iterable[TypedPrefix], held: Iterable[Lease]) -> list[TypedPrefix]:
    """What is configured, and what an agent before this one held, with the addresses that it had,
    as of now. What was configured and is no more, is gone.
    """
    moment = now()
    leases = {lease.grant.prefix.id: lease for lease in held}
    granted = {i: each for i, each in leases.items() if not each.grant.is_configured}
    others, _ = Holding(granted).at(moment)
    known = [
        *(
            replace(each, addresses=before.addresses, resting=before.resting_numbers)
            if (before := leases.get(each.id)) and before.grant.is_configured
            else each
            for each in prefixes
        ),
        *others.prefixes(),
    ]
    periods = wandering.periods_at(known, moment.boot_s)
    return [wandering.in_period(each, periods) for each in known]
