"""Two access sites that drop foreign sources, and prefixes delegated by both at once.

The sites' own filters count what they drop, captures before them show what has come, and the
correspondent's servers log who called.
"""

from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass
from tests.lab.capture import Capture
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION
from tests.lab.root import needs_root
from tests.netlab.plan import CORE
from tests.netlab.roaming import Roamer
from tests.netlab.site import ACCESS, AccessSite
from tests.netlab.topology import NetLab

pytestmark = needs_root

#: What each site is asked for; both are asked for one type.
WANTED = {
    "a": (SESSION, NONPERSISTENT),
    "b": (FIXED, GRACEFUL, NONPERSISTENT),
}
CLASSES = {
    **{type.word: LabClass(allow=(type,), default=type) for type in TYPES},
    "every": LabClass(allow=TYPES),
}


@pytest.fixture(scope="module")
def roamer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roamer]:
    delegations = {
        letter: {
            "interface": interface,
            "types": [each.word for each in WANTED[letter]],
            "at_start": [each.word for each in WANTED[letter]],
        }
        for letter, interface in (("a", "w0"), ("b", "w1"))
    }
    with (
        NetLab() as lab,
        Roamer(lab, tmp_path_factory.mktemp("roamer"), CLASSES, delegations) as made,
    ):
        for letter, types in WANTED.items():
            for type in types:
                made.prefix(letter, type)
        yield made


class Watch:
    """What comes from the host to each site, from when it is made."""

    def __init__(self, lab: NetLab) -> None:
        self._before = {each: each.filter.dropped() for each in lab.sites.values()}
        self._captures = {each: Capture(each.netns, ACCESS) for each in lab.sites.values()}

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._captures.values():
            each.close()

    def sources(self) -> dict[str, set[IPv6Address]]:
        """By site, the global sources that came since asked last; each must be the site's own."""
        return {site.plan.letter: self._at(site) for site in self._captures}

    def _at(self, site: AccessSite) -> set[IPv6Address]:
        own = [site.plan.link, *site.routed()]
        came = {
            each.source
            for each in self._captures[site].packets()
            if isinstance(each.source, IPv6Address)
            and not (each.source.is_link_local or each.source.is_unspecified)
        }
        strays = {each for each in came if not any(each in network for network in own)}
        assert not strays, f"foreign to site {site.plan.letter}: {strays}"
        assert site.filter.dropped() == self._before[site]
        return came


@pytest.fixture
def watch(roamer: Roamer) -> Iterator[Watch]:
    with Watch(roamer.lab) as made:
        yield made


@pytest.fixture(params=["w0", "w1"])
def main_goes_by(roamer: Roamer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Whichever of the two routers the host's ordinary traffic prefers."""
    interface: str = request.param
    site = next(each for each in roamer.lab.sites.values() if each.interface == interface)
    route = ("default", "via", str(site.plan.router), "dev", interface, "metric", "100")
    roamer.netns.ip("-6", "route", "add", *route)
    yield interface
    roamer.netns.ip("-6", "route", "delete", *route)


@pytest.mark.parametrize(
    ("letter", "type"),
    [
        pytest.param(letter, type, id=f"{letter}-{type.word}")
        for letter, types in WANTED.items()
        for type in types
    ],
)
def test_N4_what_is_bound_to_a_delegated_address_leaves_by_the_site_that_routes_it(
    roamer: Roamer, watch: Watch, main_goes_by: str, letter: str, type: AddressType
) -> None:
    source = roamer.source(letter, type)
    request = f"bound-{letter}-{type.word}-{main_goes_by}"
    assert roamer.fetch("every", request, source) == "hello"
    assert roamer.resolve("every", request, source) == str(CORE[1])
    assert roamer.lab.nginx.logged(request) == {str(source)}
    assert roamer.lab.dnsmasq.logged(request) == {str(source)}
    sources = watch.sources()
    assert source in sources.pop(letter)
    assert not any(source in each for each in sources.values())


@pytest.mark.parametrize("type", TYPES, ids=lambda each: each.word)
def test_N4_what_a_class_is_given_leaves_by_the_site_that_routes_it(
    roamer: Roamer, watch: Watch, main_goes_by: str, type: AddressType
) -> None:
    request = f"given-{type.word}-{main_goes_by}"
    assert roamer.fetch(type.word, request) == "hello"
    assert roamer.resolve(type.word, request) == str(CORE[1])
    (seen,) = roamer.lab.nginx.logged(request)
    able = {letter: roamer.source(letter, type) for letter in WANTED if type in WANTED[letter]}
    assert IPv6Address(seen) in able.values()
    assert {IPv6Address(each) for each in roamer.lab.dnsmasq.logged(request)} <= {*able.values()}
    sources = watch.sources()
    for letter, came in sources.items():
        assert (IPv6Address(seen) in came) == (able.get(letter) == IPv6Address(seen))


def test_N4_ordinary_traffic_goes_as_it_would_without_us(
    roamer: Roamer, watch: Watch, main_goes_by: str
) -> None:
    request = f"plain-{main_goes_by}"
    said = roamer.netns.run(
        ["curl", "-sS", "--max-time", "5", "--noproxy", "*", f"http://[{CORE[1]}]/{request}"]
    )
    assert said.strip() == "hello"
    (seen,) = roamer.lab.nginx.logged(request)
    by_link = {each.interface: each.plan.link for each in roamer.lab.sites.values()}
    assert IPv6Address(seen) in by_link[main_goes_by]
    assert IPv6Address(seen) in set().union(*watch.sources().values())
