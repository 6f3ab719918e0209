"""D2: what is held by an uplink that is down serves nobody, so the network of another is asked.

Two access sites with a stock Kea each, which delegate the same type. The captures before the host's
interfaces say what each was asked.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Network
from typing import Final

import pytest

from tests.lab.agent import LabClass
from tests.lab.host import NONPERSISTENT
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.dissect import Seen, Wire, wire
from tests.netlab.kea import Rules
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message, Probe, Wish
from tests.netlab.roaming import Roamer
from tests.netlab.topology import NetLab

pytestmark = needs_root

_TYPE: Final = NONPERSISTENT
_POOLS: Final = {letter: SITES[letter].pools[WireType.NONPERSISTENT] for letter in "ab"}
_LATE_S: Final = 40.0


class TwoNetworks:
    """Both may be asked for the type; the first has given it since the start."""

    def __init__(self, roamer: Roamer, wires: dict[str, Wire]) -> None:
        self.roamer, self.wires = roamer, wires
        self.lab = roamer.lab
        self._tries = itertools.count()

    def asked(self, letter: str, kind: Message = Message.SOLICIT) -> list[Seen]:
        """What a site was sent of a kind."""
        return [each for each in self.wires[letter].messages() if each.message is kind]

    def held(self, letter: str) -> bool:
        """Whether there is a prefix of the site, wherever its link is."""
        return any(
            IPv6Network(row["prefix"]).subnet_of(_POOLS[letter])
            for row in self.roamer.agent.read("prefixes")
        )

    def fetch(self, request: str) -> str | None:
        """The letter of the site by which an application of the class got a page; None: it didn't.

        It asks as often as a person would, who wonders what is wrong.
        """
        time.sleep(0.3)
        request = f"{request}-{next(self._tries)}"
        if self.roamer.fetch("brief", request) != "hello":
            return None
        (source,) = self.roamer.lab.nginx.logged(request)
        (letter,) = (each for each, pool in _POOLS.items() if IPv6Network(source).subnet_of(pool))
        return letter


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Rules], TwoNetworks]]:
    """Makes them; where the second site's rules make its pools small, others have all of them."""
    with ExitStack() as stack:

        def made(second: Rules) -> TwoNetworks:
            lab = stack.enter_context(NetLab({"a": Rules(), "b": second}))
            for type in second.pool_lengths:
                with Probe(lab.mobile, "w1") as other:
                    other.obtain(Wish(type << 24, type))
            wires = {
                site.plan.letter: stack.enter_context(wire(lab.mobile, site.interface, lab.folder))
                for site in lab.sites.values()
            }
            delegations = {
                "a": {"interface": "w0", "types": [_TYPE.word], "at_start": [_TYPE.word]},
                "b": {"interface": "w1", "types": [_TYPE.word]},
            }
            classes = {"brief": LabClass(allow=(_TYPE,), default=_TYPE, on_failure="closed")}
            folder = tmp_path_factory.mktemp("roamer")
            roamer = stack.enter_context(Roamer(lab, folder, classes, delegations))
            roamer.prefix("a", _TYPE)
            return TwoNetworks(roamer, wires)

        yield made


def _serves_by(both: TwoNetworks, letter: str, request: str) -> None:
    wait_until(lambda: both.fetch(request) == letter, f"site {letter} serves", _LATE_S)


def _link(*arguments: str) -> Callable[[NetLab], object]:
    return lambda lab: lab.mobile.ip("link", "set", *arguments)


#: How the first uplink is lost, and how it comes back.
_LOSSES: Final[dict[str, tuple[Callable[[NetLab], object], Callable[[NetLab], object]]]] = {
    "carrier": (lambda lab: lab.a.unplug(), lambda lab: lab.a.plug()),
    "down": (_link("w0", "down"), _link("w0", "up")),
    "gone": (_link("w0", "name", "x0"), _link("x0", "name", "w0")),
}


@pytest.mark.parametrize("lost", _LOSSES)
def test_D2_a_type_held_by_an_uplink_that_is_down_is_requested_of_the_other(
    make: Callable[[Rules], TwoNetworks], lost: str
) -> None:
    lose, restore = _LOSSES[lost]
    both = make(Rules())
    _serves_by(both, "a", "first")
    assert not both.asked("b")
    lose(both.lab)
    time.sleep(2.0)
    assert not both.asked("b")  # S7: a link that is lost is no application
    _serves_by(both, "b", "second")
    assert both.held("a") and both.held("b")
    assert {each.xid for each in both.asked("b")} == {both.asked("b")[0].xid}
    restore(both.lab)
    _serves_by(both, "a", "third")
    assert both.held("b")
    assert not both.asked("a", Message.RELEASE) and not both.asked("b", Message.RELEASE)


def test_D2_a_link_that_comes_and_goes_makes_no_storm_of_requests(
    make: Callable[[Rules], TwoNetworks],
) -> None:
    """The other network has nothing to give, and is asked ever more seldom."""
    both = make(Rules(pool_lengths={WireType.NONPERSISTENT: 64}))
    asked = list[int]()
    for turn in range(12):
        both.lab.a.unplug()
        for _ in range(4):
            both.fetch(f"lost-{turn}")
        both.lab.a.plug()
        _serves_by(both, "a", f"back-{turn}")
        asked.append(len({each.xid for each in both.asked("b")}))
    assert asked[0]
    assert asked[-1] - asked[5] <= 2, asked
