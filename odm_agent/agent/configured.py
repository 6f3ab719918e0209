"""The configuration: read, held against the host, and as values of the core."""

from collections.abc import Iterable
from pathlib import Path

from odm_agent.config import load as config_file
from odm_agent.config.classes import class_policies
from odm_agent.config.schema import Config
from odm_agent.core.errors import ConfigError
from odm_agent.core.model import ClassPolicy, TypedPrefix
from odm_agent.datapath import abi
from odm_agent.journal import Journal
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
    config: Config, journal: Journal
) -> tuple[tuple[TypedPrefix, ...], dict[int, ClassPolicy]]:
    """Prefixes and classes of a configuration, with their ids, all or none of which are given.

    Raises ConfigError, JournalError.
    """
    with journal.transaction():
        prefixes = typed_prefixes(
            config, lambda name: journal.id_of("prefix", name), journal.prefixes_by_interface()
        )
        classes = class_policies(config, lambda name: journal.id_of("class", name))
        _refuse_excess(prefixes, classes)
    return prefixes, classes


def _refuse_excess(prefixes: Iterable[TypedPrefix], classes: Iterable[int]) -> None:
    """What the maps can't hold must not be half applied. Raises ConfigError."""
    anew = "names are never given an id again: use old names, or start anew (docs/configuration.md)"
    if max(classes) >= abi.UNDECIDED_CLASS:
        raise ConfigError(f"more than {abi.UNDECIDED_CLASS - 1} class names were used; {anew}")
    if max((p.id for p in prefixes), default=0) >= abi.MAX_PREFIXES:
        raise ConfigError(f"more than {abi.MAX_PREFIXES - 1} prefix names were used; {anew}")
    # Half: a pool that changes stands in the map twice for a moment.
    if sum(p.pool for p in prefixes) > abi.MAX_POOL // 2:
        raise ConfigError(
            f"the pools of all prefixes together hold more than {abi.MAX_POOL // 2} addresses;"
            " make `pool` smaller"
        )
