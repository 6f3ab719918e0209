"""Which networks each site has, as vagrant/network/sites.json says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from string import Template
from typing import Any, Final

#: What the servers are told: shared with a laboratory of virtual machines.
FOLDER: Final = Path(__file__).parents[2] / "vagrant" / "network"
#: Of each pool, so that sites tell their pools apart by these many octets.
POOL_LENGTH: Final = 48


class WireType(IntEnum):
    """Address types as option 65001 has them (draft-moses-dmm-dhcp-ondemand-mobility-11).

    By a table of its own, not the agent's: a test that judges by it judges the agent's, too.
    """

    NONPERSISTENT = 1
    SESSION_LASTING = 2
    FIXED = 3
    GRACEFUL_REPLACEMENT = 4


@dataclass(frozen=True)
class SitePlan:
    """One access site. Its own addresses are the first ones of `link` and `backbone`."""

    letter: str
    number: int
    link: IPv6Network
    backbone: IPv6Network
    pools: Mapping[WireType, IPv6Network]

    @property
    def router(self) -> IPv6Address:
        """The gateway's address on the access link."""
        return self.link[1]

    def subnet_id(self, type: WireType) -> int:
        """Kea's number of the type's subnet: the same at sites that share the type's pool."""
        own = type in (WireType.NONPERSISTENT, WireType.GRACEFUL_REPLACEMENT)
        return type + (10 * self.number if own else 0)


def _read() -> tuple[IPv6Network, dict[str, SitePlan]]:
    data: dict[str, Any] = json.loads((FOLDER / "sites.json").read_text())
    core = IPv6Network(data.pop("core"))
    return core, {
        letter: SitePlan(
            letter,
            each["number"],
            IPv6Network(each["link"]),
            IPv6Network(each["backbone"]),
            {WireType(int(type)): IPv6Network(pool) for type, pool in each["pools"].items()},
        )
        for letter, each in data.items()
    }


#: The correspondent's network, and the sites by their letters.
CORE, SITES = _read()


def neighbour(site: SitePlan) -> SitePlan:
    """The other one of the two sites."""
    return next(each for each in SITES.values() if each is not site)


def type_of(prefix: IPv6Network) -> WireType:
    """The type of a delegated prefix, by the pools."""
    for site in SITES.values():
        for type, pool in site.pools.items():
            if prefix.subnet_of(pool):
                return type
    raise AssertionError(f"{prefix} is of no pool")


def filled(name: str, **values: object) -> str:
    """A file of vagrant/network with its words in ${} filled in; each must be given."""
    return Template((FOLDER / name).read_text()).substitute(
        {word: str(value) for word, value in values.items()}
    )
