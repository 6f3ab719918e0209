"""Whether a configuration fits the host that it is to run on. Pure: takes what was read of it."""

from collections.abc import Iterator

from odm_agent.config.advice import advice
from odm_agent.config.delegations import interfaces_of
from odm_agent.config.problems import Problem
from odm_agent.config.schema import Config, PrefixConfig
from odm_agent.config.values import spans_of
from odm_agent.core.host import HostState, LocalAddress
from odm_agent.core.model import IPAddress
from odm_agent.prefixes.managed import fits, fits_any


def host_errors(config: Config, host: HostState) -> list[Problem]:
    """Why enforcing this configuration would cut off what works now."""
    foreign = _foreign(host)
    untyped: set[int] = {a.address.version for a in foreign if not _denied_by(config, a)}
    return [*_inside(config, foreign), *_left_without(config, foreign, untyped)]


def host_warnings(config: Config, host: HostState) -> list[Problem]:
    """What will not work now, but may later: interfaces come and go, and so do leases."""
    absent = [
        Problem(
            ("prefixes", name, "interface"),
            f"there is no interface {prefix.interface!r} now; the prefix serves nobody until it"
            " appears, see `ip link`",
        )
        for name, prefix in config.prefixes.items()
        if prefix.interface not in host.links
    ]
    absent += [
        Problem(
            ("delegations", name, "interface"),
            f"there is no interface {' or '.join(map(repr, interfaces_of(each)))} now; nothing is"
            " asked for until it appears, see `ip link`",
        )
        for name, each in config.delegations.items()
        if not any(fits_any(interfaces_of(each), link) for link in host.links)
    ]
    return [*absent, *_uplinks(config, host), *advice(config, host), *_given(config, host)]


def _uplinks(config: Config, host: HostState) -> Iterator[Problem]:
    """Interfaces that others manage come and go, so nothing of them makes a configuration wrong."""
    fitting = {
        name: {link for link in host.links if fits(uplink.interface, link)}
        for name, uplink in config.uplinks.items()
    }
    for name, links in fitting.items():
        if not links:
            yield Problem(
                ("uplinks", name, "interface"),
                f"no interface is called {config.uplinks[name].interface!r} now; the uplink serves"
                " nobody until one appears, see `ip link`",
            )
    exclusive = {name for name, uplink in config.uplinks.items() if uplink.exclusive}
    taken = {link for name in exclusive for link in fitting[name]}
    foreign = [local for local in _foreign(host) if not _denied_by(config, local)]
    for version in sorted({local.address.version for local in foreign}):
        of_version = [local for local in foreign if local.address.version == version]
        if all(local.interface in taken for local in of_version):
            last = next(n for n in config.uplinks if n in exclusive and fitting[n] & taken)
            yield Problem(
                ("uplinks", last, "exclusive"),
                f"all IPv{version} addresses of this host are on exclusive uplinks now: sockets of"
                " no class have none, name servers, updates and time among them; leave exclusive"
                " out, or give the host another uplink",
            )


def _given(config: Config, host: HostState) -> Iterator[Problem]:
    """What the network sends never makes a configuration wrong."""
    for local in _foreign(host):
        if local.from_network and (name := _typed_by(config, local)):
            yield Problem(
                ("prefixes", name),
                f"{local.address} on {local.interface} lies in this prefix, but the network gave it"
                ' to this host: it stays untyped; say untyped = "allow" if that is meant',
            )


def _foreign(host: HostState) -> list[LocalAddress]:
    return [a for a in host.addresses if not a.ours and _is_global(a.address)]


def _inside(config: Config, foreign: list[LocalAddress]) -> Iterator[Problem]:
    for local in foreign:
        if name := _denied_by(config, local):
            yield Problem(
                ("prefixes", name),
                f"{local.address} on {local.interface} lies in this prefix, but odm-agent did not"
                " put it there: sockets of no class would lose it; remove it, narrow the prefix,"
                ' or say untyped = "allow"',
            )


def _left_without(
    config: Config, foreign: list[LocalAddress], untyped: set[int]
) -> Iterator[Problem]:
    families = {a.address.version for a in foreign}
    for name, prefix in config.prefixes.items():
        version = spans_of(prefix)[0].version
        if version in families and version not in untyped:
            families.remove(version)
            yield Problem(
                ("prefixes", name),
                f"all IPv{version} addresses of this host would be typed, none is left for sockets"
                " of no class; give the host one outside the typed prefixes, or say"
                ' untyped = "allow" where it has one',
            )


def _denied_by(config: Config, local: LocalAddress) -> str | None:
    """The prefix that types somebody else's address against its will, if there is one."""
    return None if local.from_network else _typed_by(config, local)


def _typed_by(config: Config, local: LocalAddress) -> str | None:
    for name, prefix in config.prefixes.items():
        if prefix.untyped == "refuse" and _holds(prefix, local.address):
            return name
    return None


def _holds(prefix: PrefixConfig, address: IPAddress) -> bool:
    return any(s.version == address.version and address in s for s in spans_of(prefix))


def _is_global(address: IPAddress) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
