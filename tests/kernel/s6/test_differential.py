"""S6: the same program on a host that never had an agent and on one with typed prefixes."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent.model import Family
from tests.kernel.s6.operations import results
from tests.lab.cgroup import Cgroup
from tests.lab.host import CORRESPONDENT, Site
from tests.lab.place import Place
from tests.lab.world import PLAIN, World

_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_HOSTS: Final = f"""\
127.0.0.1 localhost
::1 localhost
198.51.100.1 many.example
{CORRESPONDENT[Family.IPV4]} many.example
2001:db8:b::1 many.example
{CORRESPONDENT[Family.IPV6]} many.example
"""
_libc: Final = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A fresh host with an agent."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that stand for /etc/hosts and /etc/resolv.conf of the host."""
    folder = tmp_path_factory.mktemp("etc")
    (folder / "hosts").write_text(_HOSTS)
    (folder / "resolv.conf").write_text(
        f"nameserver {CORRESPONDENT[Family.IPV4]}\noptions timeout:1\n"
    )
    return folder


@pytest.fixture(scope="module")
def stock(names: Path) -> list[str]:
    """What a host says that never had an agent, and what its correspondent recorded."""
    with Site() as site, Cgroup("stock") as cgroup:
        return _run(site, Place(cgroup, site.host), names)


def _run(site: Site, place: Place, names: Path) -> list[str]:
    def application() -> list[str]:
        if _libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        _mount(None, "/", _MS_REC | _MS_PRIVATE)
        for name in ("hosts", "resolv.conf"):
            _mount(names / name, f"/etc/{name}", _MS_BIND)
        return results()

    site.peer.seen()
    lines = place.do(application, timeout_s=90)
    seen = [f"{each.protocol} {each.source} -> {each.port}" for each in site.peer.seen()]
    return lines + seen


def _mount(source: Path | None, target: str, flags: int) -> None:
    what = str(source).encode() if source else b"none"
    if _libc.mount(what, target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def test_S6_operations_are_many_and_say_something(stock: list[str]) -> None:
    """A differential of failures would prove nothing."""
    assert len(stock) > 300
    served = [line for line in stock if "192.0.2.10" in line or "2001:db8:a::10" in line]
    assert len(served) > 100


@pytest.mark.parametrize("name", [PLAIN, "nothing", "every", "off"])
def test_S6_legacy_program_sees_no_difference(
    world: World, stock: list[str], names: Path, name: str
) -> None:
    """No class, and classes without a default: every result, errno, name and source is the same."""
    assert _run(world.site, world.place(name), names) == stock


def test_S6_differential_notices_a_default_type(
    world: World, stock: list[str], names: Path
) -> None:
    """The comparison itself: a class with a default does differ."""
    assert _run(world.site, world.place("session"), names) != stock
