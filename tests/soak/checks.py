"""The counts against the kernel's own list of sockets, while everything stands still."""

from collections.abc import Iterator

from odm_agent.kernel.sock_diag import SocketInfo, sockets
from tests.lab.counts import Counts, look
from tests.lab.host import type_of
from tests.lab.process import wait_until
from tests.lab.world import World
from tests.soak.classes import COUNTED


def frozen_check(world: World, workers: int) -> tuple[int, list[str]]:
    """Freeze all applications and compare; (sockets counted, what is wrong).

    Packets that are under way may still close a socket: what differs is looked at again.
    """
    freezer = world.cgroup.path / "cgroup.freeze"
    events = world.cgroup.path / "cgroup.events"
    freezer.write_text("1")
    try:
        wait_until(lambda: "frozen 1" in events.read_text(), "all applications stand still")
        for _ in range(10):
            counts = look(world.agent)
            listed = world.site.host.call(sockets)
            wrong = list(_wrong(world, counts, listed, workers))
            if not wrong:
                break
        return len(counts.held), wrong
    finally:
        freezer.write_text("0")


def _wrong(world: World, counts: Counts, listed: list[SocketInfo], workers: int) -> Iterator[str]:
    held = {row.cookie: row for row in counts.held}
    if not sum(counts.usage.values()) == sum(counts.live.values()) == len(held):
        yield (
            f"{sum(counts.usage.values())} by class, {sum(counts.live.values())} by address,"
            f" {len(held)} sockets"
        )
    shown = {info.cookie: info for info in listed if not info.remnant}
    counted = {world.place(name).cgroup.id for name in COUNTED}
    for info in shown.values():
        if info.cgroup_id in counted and type_of(info.local) and info.cookie not in held:
            yield f"not counted: {info}"
    for cookie, row in held.items():
        found = shown.get(cookie)
        if found and not found.local.is_unspecified and found.local != row.held:
            yield f"counted at {row.held}: {found}"
    # Older kernels list no TCP socket that is only bound; a worker may be frozen with one.
    missing = held.keys() - shown.keys()
    if len(missing) > workers:
        yield f"{len(missing)} sockets are counted that the kernel does not list"
