"""An access site's source filter, told by vagrant/network/filter.nft."""

import json
from typing import Final

from tests.lab.netns import NetNs, checked
from tests.netlab.plan import filled

_COUNTER: Final = ("ip6", "access", "foreign")


class SourceFilter:
    """Drops what a host sends from a source that this site doesn't route to it."""

    def __init__(self, netns: NetNs, interface: str) -> None:
        self._netns = netns
        checked(netns.command(["nft", "-f", "-"]), input=filled("filter.nft", interface=interface))

    def dropped(self) -> int:
        """How many packets it has dropped since it was made."""
        listed = self._netns.run(["nft", "-j", "list", "counter", *_COUNTER])
        (counter,) = (
            each["counter"] for each in json.loads(listed)["nftables"] if "counter" in each
        )
        return int(counter["packets"])
