"""The configuration: read, held against the host, and as values of the core."""

from collections.abc import Collection
from pathlib import Path

from odm_agent.agent.numbering import Draft
from odm_agent.config import load as config_file
from odm_agent.config.classes import class_policies
from odm_agent.config.delegations import all_as_prefixes
from odm_agent.config.schema import Config
from odm_agent.core.errors import ConfigError
from odm_agent.core.model import ClassPolicy, TypedPrefix
from odm_agent.datapath import abi
from odm_agent.journal.duid import host_duid
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.sources.static import typed_prefixes


def read_config(path: Path, kernel: NetlinkKernel | None = None) -> tuple[Config, list[str]]:
    """The configuration, and warnings a person should see. Raises ConfigError.

    It is held against the host as `kernel` reads it; None opens one for that.
    """
    text = config_file.read(path)
    config = config_file.parse(text, path)
    if kernel is None:
        with NetlinkKernel(config.agent.protocol) as opened:
            host = opened.read()
    else:
        host = kernel.read()
    review = config_file.review(config, host, text)
    if review.errors:
        raise config_file.refusal(path, review.errors)
    return config, [f"{path}:{found.line}: {found.message}" for found in review.warnings]


def compiled(
    config: Config, numbering: Draft, by_interface: Collection[str]
) -> tuple[tuple[TypedPrefix, ...], dict[int, ClassPolicy]]:
    """Prefixes and classes of a configuration, with their numbers.

    `by_interface` as in `typed_prefixes`. Raises ConfigError, JournalError.
    """
    classes = class_policies(config, lambda name: numbering.take("class", name))
    prefixes = typed_prefixes(
        config,
        lambda name: numbering.take("prefix", name),
        by_interface,
        {policy.name: policy.id for policy in classes.values()},
    )
    # Half: a pool that changes stands in the map twice for a moment.
    pools = [each.pool for each in prefixes]
    pools += [each.pool for each in all_as_prefixes(config).values()]
    if sum(pools) > abi.MAX_POOL // 2:
        raise ConfigError(
            f"the pools of all prefixes together hold more than {abi.MAX_POOL // 2} addresses;"
            " make `pool` smaller"
        )
    return prefixes, classes


def duid_of(config: Config) -> bytes | None:
    """By what networks know this host; None: no delegation is configured. Raises JournalError."""
    return host_duid(Path(config.agent.state_dir)) if config.delegations else None
