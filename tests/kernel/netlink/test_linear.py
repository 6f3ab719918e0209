"""What a change costs grows with the change, and with nothing else: messages are counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from pyroute2.netlink import NLM_F_DUMP
from pyroute2.netlink.rtnl import RTM_GETADDR

from odm_agent.core.actions import (
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.host import Address, Route, Rule, RuleAction
from odm_agent.core.model import Family
from odm_agent.kernel.rtnetlink import Rtnetlink
from odm_agent.kernel.wire import HEADER
from tests.lab.kernel import LabKernel

SOURCE = IPv4Address("198.51.100.1")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How many requests are sent meanwhile: `dumps`, and `others`.

    Whether an address is ready is asked as often as the kernel takes: that is not counted.
    """
    found: Counter[str] = Counter()
    send = Rtnetlink._send

    def counting(netlink: Rtnetlink, packed: Sequence[bytearray]) -> list[int]:
        for each in packed:
            _, kind, flags, _, _ = HEADER.unpack_from(each)
            if kind == RTM_GETADDR and flags & NLM_F_DUMP != NLM_F_DUMP:
                continue
            found["dumps" if flags & NLM_F_DUMP == NLM_F_DUMP else "others"] += 1
        return send(netlink, packed)

    with monkeypatch.context() as patch:
        patch.setattr(Rtnetlink, "_send", counting)
        yield found


def addresses(count: int) -> Iterator[tuple[KernelAction, KernelAction]]:
    for number in range(count):
        added = Address(IPv6Address("2001:db8:f::1") + number, 128, "lo")
        yield AddAddress(added), RemoveAddress(added)


def labels(count: int) -> Iterator[tuple[KernelAction, KernelAction]]:
    for number in range(count):
        labelled = IPv6Address("2001:db8:f::1") + number
        yield AddLabel(labelled), RemoveLabel(labelled)


def routes(count: int) -> Iterator[tuple[KernelAction, KernelAction]]:
    for number in range(count):
        network = IPv4Network((int(IPv4Address("10.0.0.0")) + 256 * number, 24))
        added = Route(865301, Family.IPV4, network, interface="w0", source=SOURCE)
        yield AddRoute(added), RemoveRoute(added)


def rules(count: int) -> Iterator[tuple[KernelAction, KernelAction]]:
    """As prefixes have them: by mark, by source for local packets, and a refusal."""
    for number in range(count):
        network = IPv6Network((int(IPv6Address("2001:db8:f::")) + (number << 64), 64))
        for rule in (
            Rule(Family.IPV6, 8653, 865301 + number, mark=number + 1 << 16, mask=0xFFFF0000),
            Rule(Family.IPV6, 8655, 865301 + number, source=network, local_only=True),
            Rule(Family.IPV6, 8656, 0, source=network, action=RuleAction.PROHIBIT),
        ):
            yield AddRule(rule), RemoveRule(rule)


@pytest.mark.parametrize("kind", [addresses, labels, routes, rules])
def test_messages_grow_with_the_change_and_dumps_do_not(
    kernel: LabKernel,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[int], Iterator[tuple[KernelAction, KernelAction]]],
) -> None:
    kernel.apply(AddAddress(Address(SOURCE, 32, "lo")))
    seen = []
    for count in (20, 40, 80):
        added, removed = zip(*kind(count), strict=True)
        with counted(monkeypatch) as there:
            kernel.apply(*added)
        with counted(monkeypatch) as again:
            kernel.apply(*added)
        with counted(monkeypatch) as gone:
            kernel.apply(*removed)
        assert max(each["dumps"] for each in (there, again, gone)) <= 1
        seen.append([each["others"] for each in (there, again, gone)])
        assert all(each >= len(added) for each in seen[-1][:1])
    for small, middle, large in zip(*seen, strict=True):
        assert large - middle == 2 * (middle - small)
