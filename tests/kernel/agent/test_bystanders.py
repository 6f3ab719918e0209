"""What the agent makes in the kernel does not change what others' packets meet."""

from tests.lab.client import Kind, call
from tests.lab.world import PLAIN, World


def test_policy_routing_of_others_stays_as_it_was(own: World) -> None:
    """A rule of the host's own, later than ours, that overrides a route of main (a VPN, say)."""
    host = own.site.host
    host.ip("route", "add", "203.0.113.0/28", "via", "198.51.100.1", "dev", "w1")
    host.ip("rule", "add", "priority", "20000", "to", "203.0.113.0/28", "lookup", "20")
    host.ip("route", "add", "default", "via", "192.0.2.1", "dev", "w0", "table", "20")
    with own.captures() as captures:
        own.place(PLAIN).do(lambda: call(Kind.TCP4))
        own.place(PLAIN).do(lambda: call(Kind.UDP4))
        assert captures.sources("A"), "by the rule"
        assert not captures.sources("B"), "not by the route in main"
