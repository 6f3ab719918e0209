"""A site whose interface w1 is an uplink: others have put addresses and a default route there.

Main's best default route is by w0, towards gateway A; that by w1, towards B, is worse.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, LINKS, NONPERSISTENT
from tests.lab.world import World

KINDS: Final = (
    *(Kind.TCP6, Kind.TCP4, Kind.TCP_MAPPED, Kind.MPTCP6, Kind.MPTCP4),
    *(Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED, Kind.SENDTO6, Kind.SENDTO4, Kind.SENDTO_MAPPED),
)
CLASSES: Final = {
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed"),
    "open": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="open"),
    "may": LabClass(allow=(NONPERSISTENT,)),
    "strict": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, strict=True),
    "other": LabClass(allow=(FIXED,)),
    "sealed": LabClass(allow=(FIXED,), default=FIXED, strict=True),
    "capped": LabClass(
        allow=(NONPERSISTENT,), default=NONPERSISTENT, caps={NONPERSISTENT: {"sockets": 1}}
    ),
}
WIFI: Final[dict[str, Any]] = {"interface": "w1"}


@contextmanager
def uplinked(
    folder: Path,
    uplinks: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, LabClass] = CLASSES,
) -> Iterator[World]:
    """The site with an agent for these uplinks."""
    with World(folder, Settings(classes=classes, uplinks=uplinks), start=False) as world:
        for family in Family:
            way(world, family)
        world.agent.start()
        yield world


def way(world: World, family: Family, metric: int = 5000, via: str | None = None) -> None:
    """Add a default route by w1, as a network manager does."""
    gateway = via or str(LINKS["B", family][1])
    world.site.host.ip(
        *("route", "replace", "default", "via", gateway, "dev", "w1", "metric", str(metric))
    )


def host(letter: str, family: Family) -> str:
    """The host's own address towards a gateway."""
    return str(LINKS[letter, family][2])


def seen(
    world: World, place: str, kind: Kind, type: AddressType = AddressType.UNSPECIFIED, **more: Any
) -> str:
    """From where an application of a class is seen to call."""
    return world.place(place).do(lambda: call(kind, type, **more).seen)


def states(world: World) -> dict[str, str]:
    """How each prefix stands."""
    return {each["name"]: each["state"] for each in world.agent.read("prefixes")}
