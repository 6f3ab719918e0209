"""What is taken to be there after additions is what a look at everything finds."""

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from odm_agent.core.actions import AddAddress, AddLabel, AddRoute, AddRule, KernelAction
from odm_agent.core.host import Address, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import Family
from odm_agent.reconcile.additions import with_done
from tests.lab.kernel import LabKernel

FIRST4, FIRST6 = IPv4Address("198.51.100.1"), IPv6Address("2001:db8:f::1")
NETS = (IPv4Network("198.51.100.0/25"), IPv6Network("2001:db8:f::/48"))


def _addresses(draw: random.Random) -> list[KernelAction]:
    numbers = draw.sample(range(8), 3)
    return [
        *(AddAddress(Address(FIRST4 + n, 32, "lo")) for n in numbers),
        *(AddAddress(Address(FIRST6 + n, 128, draw.choice(["lo", "w0"]))) for n in numbers),
    ]


def _labels(draw: random.Random) -> list[KernelAction]:
    return [AddLabel(FIRST6 + n) for n in draw.sample(range(8), 2)]


def _routes(draw: random.Random) -> list[KernelAction]:
    """Several of one destination: some take another one's place, some stand beside it."""
    table = draw.choice([865301, 865302])
    made: list[Route] = []
    for network in NETS:
        family = Family.of(network.network_address)
        interface = draw.choice(["w0", "w1"])
        made += [
            Route(table, family, None, RouteKind.UNREACHABLE, metric=draw.choice([1, 4278198272])),
            Route(table, family, network, interface=interface, metric=draw.choice([0, 5])),
        ]
    made.append(
        Route(table, Family.IPV6, None, interface="w0", gateway=IPv6Address("fe80::1"), metric=7)
    )
    return [AddRoute(each) for each in made]


def _rules(draw: random.Random) -> list[KernelAction]:
    table = draw.choice([865301, 865302])
    made: list[Rule] = []
    for network in NETS:
        family = Family.of(network.network_address)
        made += [
            Rule(family, 8653, table, mark=draw.choice([1, 2]) << 24, mask=0xFF000000),
            Rule(family, 8655, table, source=network, local_only=draw.random() < 0.5),
            Rule(family, 8656, 0, source=network, action=RuleAction.PROHIBIT),
        ]
    return [AddRule(each) for each in made]


@pytest.mark.parametrize("seed", range(12))
def test_what_was_added_is_what_is_found(kernel: LabKernel, seed: int) -> None:
    draw = random.Random(seed)
    host = kernel.read()
    for _ in range(4):
        added: list[KernelAction] = []
        for kind in draw.sample([_addresses, _labels, _routes, _rules], draw.randint(1, 4)):
            actions = kind(draw)
            refused = kernel.apply_all(actions)
            added += [each for each, error in zip(actions, refused, strict=True) if error is None]
        host = with_done(host, added, kernel.read_addresses(host.links))
        found = kernel.read()
        assert set(host.addresses) == set(found.addresses)
        assert (host.routes, host.rules, host.labels) == (found.routes, found.rules, found.labels)
        assert host.main_routes == found.main_routes
