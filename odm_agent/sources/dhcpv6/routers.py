"""By which router, or server, answers come, and by which they came in the network before."""

from ipaddress import IPv6Address

from odm_agent.core.model import TypedPrefix


class Routers:
    """Link-local addresses. The kernel keeps a default route for as long as its router has said,
    wherever the host is by then.
    """

    def __init__(self) -> None:
        """None has answered."""
        self.former: IPv6Address | None = None
        self._present: IPv6Address | None = None
        self._is_new = False

    def unknown(self) -> None:
        """There is a link, to whichever network."""
        self._is_new = True

    def answers(self, router: IPv6Address | None) -> None:
        """This one gives prefixes now; with the first answer on a link it is known whether that is
        another network. Another one on the same link is beside it.
        """
        if self._is_new and self._present not in (None, router):
            self.former = self._present
        if router == self.former:
            self.former = None
        self._present, self._is_new = router, False

    def resume(self, prefix: TypedPrefix) -> None:
        """An agent before this one held it, and knew of its routers."""
        if isinstance(prefix.gateway, IPv6Address):
            self._present = prefix.gateway
        if isinstance(prefix.former_gateway, IPv6Address):
            self.former = prefix.former_gateway
