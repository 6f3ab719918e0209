"""The checklist of RFC 8653 that the tests' names refer to: ID, section, and what it asks."""

from typing import Final

REQUIREMENTS: Final = {
    "T1": ("3.2", "A Fixed address stays the same over restarts, link loss and handover"),
    "T2": ("3.2", "A Session-lasting address outlives a handover as long as a socket needs it"),
    "T3": ("3.2", "A Nonpersistent address comes and goes with the serving gateway's prefix"),
    "T4": ("3.2", "A Graceful-replacement address overlaps with its successor for a while"),
    "T5": ("3.2", "All four types, in IPv6 and in IPv4"),
    "S1": ("3.1", "The type is chosen socket by socket"),
    "S2": ("App. A", "The type is asked for by setsockopt and read back by getsockopt"),
    "S3": ("App. A", "setsc() waits for the network and returns the address"),
    "S4": ("App. A", "What setsc() returned can be bound"),
    "S5": ("4.4", "A type beats the source preferences of RFC 5014"),
    "S6": ("4.2", "Who asks for nothing is served as ever"),
    "S7": ("3.4", "Who asks for nothing causes no request to the network"),
    "S8": ("4.1", "Without support there is an error, and plain calls still work"),
    "S9": ("3.3", "Every way to obtain a source address is covered"),
    "D1": ("3.1", "No, one or many addresses of each type at a time"),
    "D2": ("3.4", "A type that is missing is requested from the network"),
    "D3": ("3.4", "A request that fails makes the socket call fail"),
    "D4": ("3.4", "A request that succeeds is configured and used"),
    "D5": ("3.4", "Later sockets share an address or get one of their own, by policy"),
    "D6": ("3.4", "An address without sockets is kept or released, by policy"),
    "D7": ("3.4", "A configured set of addresses is there from the start"),
    "D8": ("3.4", "Policy says which application may have which type"),
    "D9": ("3.4", "Policy gives a type to applications that say nothing"),
    "L1": ("5", "An address's lifetime in seconds is kept"),
    "L2": ("5", "An address's lifetime in bytes is kept"),
    "L3": ("5", "After a lifetime a request gets a new address"),
    "L4": ("5", "Short-lived types are renewed regularly by the host"),
    "L5": ("5", "An application sets the lifetime of its own address"),
    "L6": ("5", "The type cannot be read off an address over time"),
    "A1": ("5", "Only authorised applications use costly types"),
    "A2": ("5", "No application exhausts a limited type"),
    "A3": ("5", "Refusals are visible"),
    "N1": ("4.3", "Typed prefixes are requested and answered over DHCPv6"),
    "N2": ("4.3", "A network that knows no types still works"),
    "N3": ("3.2", "Handover: each type behaves as it says"),
    "N4": ("4.3", "Packets leave by the gateway that their source belongs to"),
}

#: What a pass does not say yet.
LIMITS: Final = {
    "T5": "selection only, no handover yet",
    "S9": "but for what docs/bypass.md names as open",
    "D1": "configured addresses only, none requested yet",
    "D5": "for the host, for each class, or for each socket; TCP over IPv6 that does not ask, with"
    " nonlocal_bind",
    "L6": "a prefix keeps its type; of several of a type, another one serves in turn",
}
