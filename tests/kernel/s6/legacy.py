"""Running the operations as an application of a place, with name service from the correspondent."""

import ctypes
from pathlib import Path
from typing import Final

from odm_agent.core.model import Family
from tests.kernel.s6.operations import results
from tests.lab.cgroup import Cgroup
from tests.lab.host import CORRESPONDENT, Site
from tests.lab.place import Place

_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_TIMEOUT_S: Final = 60
_FILES: Final = {
    "hosts": f"""\
127.0.0.1 localhost
::1 localhost
198.51.100.1 many.example
{CORRESPONDENT[Family.IPV4]} many.example
2001:db8:b::1 many.example
{CORRESPONDENT[Family.IPV6]} many.example
""",
    "resolv.conf": f"nameserver {CORRESPONDENT[Family.IPV4]}\n",
}
_libc: Final = ctypes.CDLL(None, use_errno=True)


def run(site: Site, place: Place, folder: Path) -> list[str]:
    """All results of a place on a site, and then whom its correspondent recorded.

    The record is sorted: connections whose caller does not wait for an answer are accepted in any
    order.
    """

    def application() -> list[str]:
        if _libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        _mount(None, "/", _MS_REC | _MS_PRIVATE)
        for name in _FILES:
            _mount(folder / name, f"/etc/{name}", _MS_BIND)
        return results()

    for name, text in _FILES.items():
        (folder / name).write_text(text)
    site.peer.seen()
    lines = place.do(application, timeout_s=_TIMEOUT_S)
    return lines + sorted(
        f"{each.protocol} {each.source} -> {each.port}" for each in site.peer.seen()
    )


def run_on_stock(folder: Path) -> list[str]:
    """What a host says that never had an agent."""
    with Site() as site, Cgroup("stock") as cgroup:
        return run(site, Place(cgroup, site.host), folder)


def _mount(source: Path | None, target: str, flags: int) -> None:
    what = str(source).encode() if source else b"none"
    if _libc.mount(what, target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {target}")
