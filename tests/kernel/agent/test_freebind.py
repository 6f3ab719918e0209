"""IPV6_FREEBIND, by which a request reaches a large pool, binds to nothing that it is not for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, outcome
from tests.lab.host import FIXED
from tests.lab.world import PLAIN, STANDARD, World, with_pool

_IPV6_FREEBIND: Final = 78
#: Nobody's: neither the host's, nor of any typed prefix.
_FOREIGN: Final = {Family.IPV6: "2001:db8:dead::1", Family.IPV4: "203.0.113.99"}
_OF_STOCK: Final = "EADDRNOTAVAIL"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A pool that is a route, and not addresses."""
    folder: Path = tmp_path_factory.mktemp("freebind")
    with World(folder, with_pool(STANDARD, "fixed6", 1000)) as made:
        yield made


@each_kind(Kind.TCP6, Kind.UDP6, Kind.UDP_MAPPED)
@pytest.mark.parametrize("then", ["every", PLAIN, "off"])
@pytest.mark.parametrize("by_itself", [False, True], ids=["ours", "its own"])
def test_foreign_address_is_bound_as_without_us(
    site: World, kind: Kind, then: str, by_itself: bool
) -> None:
    """The option stays on the socket, whatever its type and its caller's class are by then."""
    elsewhere = site.place(then).cgroup.procs
    own = kind.spell(site.address(AddressType.UNSPECIFIED, kind.family))

    def application() -> tuple[int, str, str]:
        with kind.open() as sock, kind.open() as other:
            for each in (sock, other):
                ask(each, FIXED)
                if by_itself:
                    each.setsockopt(41, _IPV6_FREEBIND, 1)
                ask(each, AddressType.UNSPECIFIED)
            elsewhere.write_text("0")
            option = sock.getsockopt(41, _IPV6_FREEBIND)
            told = outcome(lambda: sock.bind((kind.spell(_FOREIGN[kind.family]), 0)))
            return option, told, outcome(lambda: other.bind((own, 0)))

    assert site.place("every").do(application) == (1, "ok" if by_itself else _OF_STOCK, "ok")
