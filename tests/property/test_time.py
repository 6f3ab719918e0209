"""Whatever happens in whatever order: who waits is answered in time, and with what is really there.

The agent's own driver, machine, engine, planner, static source and lease book run on a virtual host
(tests/virtual) whose clock the test moves. The agent is killed at any effect and any kernel action,
and what it logged is replayed.
"""

import shutil
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from odm_agent.core.grants import Want
from odm_agent.core.looking import MOST_INTERRUPTIONS
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from tests.virtual.source import FIXED6, SESSION4, SESSION6, Reply
from tests.virtual.world import World

_NET6, _NET4 = IPv6Network("3fff:1::/64"), IPv4Network("198.51.100.0/24")
_RANGE = (IPv4Address("198.51.100.16"), IPv4Address("198.51.100.23"))
#: What the configuration may name: none of it is what the server gives.
CONFIGURED = (
    TypedPrefix(1, "home", AddressType.FIXED, _NET6, "w0", None, Placement.DELEGATED, (_NET6,)),
    TypedPrefix(
        *(2, "office", AddressType.FIXED, _NET4, "w0", None, Placement.ON_LINK),
        *((IPv4Network("198.51.100.16/29"),), 2, _RANGE),
    ),
)
WANTS = st.sampled_from([FIXED6, SESSION6, SESSION4])
SECONDS = st.sampled_from([0.0, 0.005, 0.3, 1.0, 2.5, 8.0, 40.0])
LASTING = st.sampled_from([float("inf"), 90.0, 5.0])
REPLIES = st.builds(
    Reply,
    delay_s=st.sampled_from([0.0, 0.5, 5.0]),
    fails=st.sampled_from([False, False, True]),
    lost=st.sampled_from([False, False, True]),
    on_link=st.booleans(),
    preferred_s=st.sampled_from([float("inf"), 4.0, 30.0]),
    valid_s=st.sampled_from([float("inf"), 60.0]),
    withdrawn_s=st.sampled_from([None, None, 0.0, 1.0, 20.0]),
    release_s=st.sampled_from([None, 0.0, 40.0]),
)

#: Seconds: a host that does other things, too, is slow, and that is no fault.
pytestmark = pytest.mark.timeout(600)


class Time(RuleBasedStateMachine):
    """One host through its days."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.world = World(self.folder)

    def teardown(self) -> None:
        self.world.replay()
        self.world.journal.close()
        shutil.rmtree(self.folder)

    # --- who wants something ---

    @rule(want=WANTS, patience=st.sampled_from([0.5, 8.0, 30.0]), reply=REPLIES)
    def ask(self, want: Want, patience: float, reply: Reply) -> None:
        self.world.replies.append(reply)
        self.world.ask(want, patience)

    @rule()
    def ask_for_all(self) -> None:
        self.world.ask(None, 8.0)

    @precondition(lambda self: self.world.callers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.sampled_from(sorted(self.world.callers))))

    @rule(want=WANTS)
    def connect(self, want: Want) -> None:
        self.world.connect(want)

    @precondition(lambda self: self.world.sockets)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.world.sockets.remove(data.draw(st.sampled_from(self.world.sockets)))

    # --- the world outside ---

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(prefixes=st.lists(st.sampled_from(CONFIGURED), unique=True).map(tuple))
    def reload(self, prefixes: tuple[TypedPrefix, ...]) -> None:
        self.world.reload(prefixes)

    @precondition(lambda self: self.world.grants)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.world.withdraw(data.draw(st.sampled_from(sorted(self.world.grants))))

    @precondition(lambda self: self.world.grants)
    @rule(data=st.data(), lasting=LASTING)
    def renew(self, data: st.DataObject, lasting: float) -> None:
        self.world.renew(data.draw(st.sampled_from(sorted(self.world.grants))), lasting)

    @precondition(lambda self: self.world.grants)
    @rule(data=st.data())
    def renumber(self, data: st.DataObject) -> None:
        self.world.renumber(data.draw(st.sampled_from(sorted(self.world.grants))))

    @rule(up=st.booleans())
    def change_link(self, up: bool) -> None:
        self.world.change_link(up)

    @rule()
    def another_host_takes_what_is_checked(self) -> None:
        pending = (a.address for a in self.world.kernel.addresses.values() if not a.ready)
        self.world.in_use_elsewhere |= {*pending, *(a.address for a in self.world.probing)}

    # --- what goes wrong with the agent ---

    @rule(kernel=st.booleans(), disk=st.booleans(), own=st.booleans())
    def break_something(self, kernel: bool, disk: bool, own: bool) -> None:
        self.world.refuse_kernel, self.world.fail_own = kernel, own
        self.world.journal.full = disk

    @rule(fuse=st.integers(0, 25))
    def kill_soon(self, fuse: int) -> None:
        if not self.world.journal.full:  # what could not be written down is lost
            self.world.fuse = fuse

    @rule(many=st.integers(1, 2 * MOST_INTERRUPTIONS))
    def interrupt_looks(self, many: int) -> None:
        self.world.interrupting = many

    @precondition(lambda self: not self.world.journal.full)
    @rule()
    def reboot(self) -> None:
        self.world.reboot()

    # --- what holds ---

    @rule()
    def settle(self) -> None:
        """Left alone, all is as it should be, and nothing is left of what is over and unused."""
        self.world.replay()
        world = self.world
        world.refuse_kernel = world.fail_own = world.journal.full = False
        world.change_link(True)
        world.announce()
        world.advance(200.0)
        assert not world.callers
        asking = world.driver._state.asking
        assert not asking.needs and not asking.requested
        held = {a.address for a in world.kernel.addresses.values() if a.ours}
        rows = {row.prefix.id: row for row in world.engine.table}
        assert held <= {a for row in rows.values() for a in row.configured}
        given = {g.key.instance for g in world.grants.values() if not world.is_over(g)}
        for row in rows.values():
            if row.prefix in CONFIGURED:
                continue
            used = not set(row.addresses).isdisjoint(world.sockets)
            assert used or row.prefix.name in given, f"{row.prefix.name} is left"
        assert given <= {row.prefix.name for row in rows.values()}
        assert {*rows} - {p.id for p in CONFIGURED} == {*world.journal.leases()}
        assert held.issuperset(a for a in world.sockets if world.is_granted(a))

    @invariant()
    def nobody_is_forgotten(self) -> None:
        self.world.check()


TestTime = Time.TestCase
TestTime.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
