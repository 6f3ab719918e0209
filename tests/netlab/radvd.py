"""radvd as an access site's router advertisement daemon, told by vagrant/network/radvd.conf."""

from collections.abc import Sequence
from pathlib import Path

from tests.lab.netns import NetNs
from tests.netlab.plan import CORE, SitePlan, filled
from tests.netlab.server import Server


class Radvd(Server):
    """Plain advertisements: a prefix to make nonpersistent addresses of, a default route, a DNS."""

    def __init__(self, netns: NetNs, interface: str, folder: Path, site: SitePlan) -> None:
        self.name = f"radvd of site {site.letter}"
        self._folder = folder
        super().__init__(netns, folder / "radvd.log")
        (folder / "radvd.conf").write_text(
            filled("radvd.conf", interface=interface, prefix=site.link, dns=CORE[1])
        )

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [
            *("radvd", "-n", "-C", f"{self._folder}/radvd.conf"),
            *("-p", f"{self._folder}/radvd.pid", "-m", "stderr"),
        ]

    def ready(self) -> bool:
        """Whether it has read what it is told, after which it writes its pid."""
        pid = self._folder / "radvd.pid"
        return pid.exists() and pid.read_text().strip() == str(self.pid)
