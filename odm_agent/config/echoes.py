"""Which hosts a configuration names to be asked whether an uplink is dead."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from odm_agent.config.delegations import interfaces_of
from odm_agent.config.quantities import seconds
from odm_agent.config.schema import Config, DelegationConfig, UplinkConfig
from odm_agent.core.model import IPAddress


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """By each interface whose name fits one of the patterns, every so often (seconds)."""

    patterns: tuple[str, ...]
    target: IPAddress
    interval_s: int


def echoes_of(config: Config) -> Iterator[EchoSettings]:
    """Those of a checked configuration, in its order."""
    sections: list[UplinkConfig | DelegationConfig] = [
        *config.uplinks.values(),
        *config.delegations.values(),
    ]
    for section in sections:
        for target in section.echo:
            yield EchoSettings(
                interfaces_of(section), ip_address(target), seconds(section.echo_interval)
            )
