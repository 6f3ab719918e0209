"""What comes from the host to each gateway: nothing may, that the site does not serve by then."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, Self

from tests.lab.capture import Capture
from tests.netlab.dissect import wire
from tests.netlab.probe_client import Message
from tests.netlab.site import ACCESS, AccessSite

#: Both captures have the kernel's own clock; one of them in microseconds.
_SLACK_S: Final = 1e-3


class Watch:
    """Captures before all gateways, from when it is made. What kernels make of advertisements is
    none of an agent's.

    A site serves a prefix from when its server has said so to the host (a Reply, as
    tshark reads it), until the host's carrier is lost: whoever is there next may be another one.
    """

    def __init__(self, sites: Iterable[AccessSite], folder: Path) -> None:
        self._sites = tuple(sites)
        self._links = [each.plan.link for each in self._sites]
        self._began_s: dict[tuple[AccessSite, IPv6Network], float] = {}
        self._came: dict[AccessSite, dict[IPv6Address, list[float]]] = {e: {} for e in self._sites}
        with ExitStack() as stack:
            self._captures = dict[AccessSite, Capture]()
            (own := folder / "watch").mkdir()
            # Of all interfaces, since a capture of one ends when that is set down.
            self._wire = stack.enter_context(wire(self._sites[0].host, "any", own))
            for site in self._sites:
                self._captures[site] = stack.enter_context(Capture(site.netns, ACCESS))
                for network in site.routed():
                    self._began_s[site, network] = 0.0
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look(self) -> None:
        """Take what has come out of the kernel's buffers, which are not without end."""
        for site, capture in self._captures.items():
            for each in capture.packets():
                source = each.source
                if isinstance(source, IPv6Address) and not (
                    source.is_link_local
                    or source.is_unspecified
                    or any(source in each for each in self._links)
                ):
                    self._came[site].setdefault(source, []).append(each.time_s)

    def forget(self) -> None:
        """What has come until now counts no more."""
        self.look()
        for each in self._came.values():
            each.clear()

    def strays(self) -> dict[str, dict[IPv6Address, float]]:
        """By site, the sources that came to it and that it did not serve by then; when that was, in
        seconds before (or since) it did.
        """
        self.look()
        found: dict[str, dict[IPv6Address, float]] = {}
        for site, came in self._came.items():
            said, lost_s = self._said(site), sorted(site.unplugged_s)
            for source, times in came.items():
                since_s = sorted(at_s for network, at_s in said if source in network)
                for at_s in times:
                    before = bisect_right(since_s, at_s + _SLACK_S)
                    losses = bisect_left(lost_s, at_s)
                    # The last that the site has said counts, if its link was not lost since.
                    if not before or (losses and since_s[before - 1] < lost_s[losses - 1]):
                        found.setdefault(site.plan.letter, {})[source] = at_s
        return found

    def came(self, site: AccessSite, network: IPv6Network) -> bool:
        """Whether anything of a network has come to a site."""
        self.look()
        return any(each in network for each in self._came[site])

    def _said(self, site: AccessSite) -> list[tuple[IPv6Network, float]]:
        """What the site has said that it serves, and when."""
        said = [(network, s) for (each, network), s in self._began_s.items() if each is site]
        said += [
            (given.prefix, reply.time_s)
            for reply in self._wire.messages(Message.REPLY)
            if reply.server[-1] == site.plan.number
            for ia in reply.ias
            for given in ia.prefixes
            if given.valid
        ]
        return said
