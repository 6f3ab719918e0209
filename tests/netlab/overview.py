"""What `make netlab` prints: a picture with addresses, leases and routes as they are, ways in."""

import json
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any, Final

from tests.lab.netns import ip
from tests.netlab.keeper import STATE
from tests.netlab.plan import CORE, SITES, WireType, type_of

_PICTURE: Final = """\
            w0 ── site-a ──┐            site-a, site-b: Kea, radvd, a source filter each
   mobile                  ├── core     core: nginx, dnsmasq, iperf3 at {core}
            w1 ── site-b ──┘            one PostgreSQL has the leases of both sites
"""


def overview(said: Mapping[str, Any]) -> str:
    """Of the laboratory that its keeper describes so."""
    return "\n".join(
        [
            _PICTURE.format(core=CORE[1]),
            *_networks(),
            "",
            "delegated now:",
            *(_leases(said) or ["  nothing"]),
            "",
            *_ways(said),
        ]
    )


def _networks() -> list[str]:
    rows: dict[str, list[object]] = {"": [f"site {letter}" for letter in SITES]}
    rows["link (by radvd)"] = [site.link for site in SITES.values()]
    for type in WireType:
        word = type.name.lower().replace("_", "-")
        rows[word] = [site.pools[type] for site in SITES.values()]
    return [
        "".join(f"{each!s:24}" for each in (row, *networks)).rstrip()
        for row, networks in rows.items()
    ]


def _leases(said: Mapping[str, Any]) -> list[str]:
    """Each delegated prefix by the routes of the sites' gateways."""
    lines = []
    for letter in SITES:
        namespace = said["namespaces"][f"site-{letter}"]
        listed = json.loads(ip("-n", namespace, "-6", "-j", "route", "show", "proto", "186"))
        for each in listed:
            word = type_of(IPv6Network(each["dst"])).name.lower().replace("_", "-")
            lines.append(f"  {each['dst']:24} {word:22} site {letter}, via {each['gateway']}")
    return lines


def _ways(said: Mapping[str, Any]) -> list[str]:
    return [
        "go in (mobile, site-a, site-b, core):",
        f"  nsenter --net={STATE}/mobile",
        "ask from inside mobile:",
        f"  curl http://[{CORE[1]}]/anything      dig @{CORE[1]} anything.demo.test AAAA",
        "see:",
        f"  tail -f {said['folder']}/access.log {said['folder']}/a/kea.log",
        f"  psql -h {said['postgres']} -U kea kea -c 'select address, subnet_id, iaid from lease6'",
        f"  nsenter --net={STATE}/site-a nft list counter ip6 access foreign",
    ]
