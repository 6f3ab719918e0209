"""A lease of an agent before this one goes on: its address, until the last socket is gone."""

import socket
import time
from contextlib import closing
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from odm_agent.core import trace
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import AddressLease, Lifetime, Phase
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.journal import Journal
from odm_agent.kernel import timer
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, call
from tests.lab.host import NONPERSISTENT, type_of
from tests.lab.place import Ready
from tests.lab.world import PLAIN, World

NET: Final = IPv6Network("2001:db8:99::/64")
PREFIX: Final = TypedPrefix(
    *(1, "lent", AddressType.SESSION_LASTING, NET, "w0", None, Placement.DELEGATED, (NET,)),
    order=1000,
)


def _lease(world: World, lasts_s: float) -> None:
    """What an agent that had a source would have left in its journal."""
    now = timer.now()
    lasts = Lifetime(now.boot_s + lasts_s, now.boot_s + lasts_s)
    address = AddressLease(0, 1, now.boot_s, Phase.CURRENT, lasts)
    lease = Lease(Grant(GrantKey("lab", "1"), PREFIX, lasts), addresses=(address,), numbered=1)
    with closing(Journal(world.agent.folder / "state" / "state.db")) as journal:
        journal.give_number("prefix", "lab/1/lent", PREFIX.id)
        journal.keep_leases({PREFIX.id: trace.spelled(("", now, lease))})


def _ours(world: World) -> list[str]:
    listed = world.site.host.ip("-6", "address", "show", "dev", "lo").splitlines()
    words = [line.split()[1] for line in listed if "inet6" in line]
    return [word for word in words if IPv6Address(word.split("/")[0]) in NET]


def _prefix(world: World) -> tuple[str, str]:
    row = next(each for each in world.agent.read("prefixes") if each["name"] == "lent")
    return row["state"], row["reason"]


def test_a_lease_of_a_source_that_is_gone_lingers_with_its_socket(tmp_path: Path) -> None:
    with World(tmp_path, start=False) as world:
        _lease(world, 3600.0)

        def hold(ready: Ready) -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
                sock.bind((str(NET[5]), 0))
                sock.listen()
                ready(None)
                time.sleep(600)

        with world.place(PLAIN).background(hold):
            world.agent.start()
            state, why = _prefix(world)
            assert state == "withdrawn" and "until their last socket is gone" in why
            assert len(_ours(world)) == 1
            assert world.agent.reload().returncode == 0
            assert len(_ours(world)) == 1
        assert world.agent.reload().returncode == 0
        eventually(lambda: not _ours(world), "the address is gone")
        world.agent.stop()
        with closing(Journal(world.agent.folder / "state" / "state.db")) as journal:
            kept = journal.leases().values()  # but for those of what is configured
            assert not [text for text in kept if "'lab'" in text]


def test_a_lease_that_cannot_be_is_told_and_its_prefix_begins_anew(tmp_path: Path) -> None:
    """The names in it are right, the contents are not."""
    with World(tmp_path) as world:
        world.agent.stop()
        with closing(Journal(world.agent.folder / "state" / "state.db")) as journal:
            [(id_, text)] = [each for each in journal.leases().items() if "'brief6'" in each[1]]
            assert text.count("addresses=(AddressLease(") == 1
            damaged = text.replace("addresses=(AddressLease(", "addresses=(1, AddressLease(")
            journal.keep_leases({id_: damaged})
        world.agent.start()
        assert "a lease is lost" in world.agent.log.read_text()
        assert world.agent.read("status")["alarms"] == []
        assert type_of(world.place("brief").do(lambda: call(Kind.TCP6).seen)) is NONPERSISTENT
        world.agent.stop()
        with closing(Journal(world.agent.folder / "state" / "state.db")) as journal:
            assert "addresses=(AddressLease(" in journal.leases()[id_]
