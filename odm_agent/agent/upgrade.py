"""Puts this version's programs in the place of those in force, with or without a running agent."""

from pathlib import Path
from typing import Literal

from odm_agent.agent.configured import read_config
from odm_agent.agent.detach import stop_agent
from odm_agent.agent.startup import open_state, wanted_by
from odm_agent.config.schema import Config
from odm_agent.control.answers import Status, Upgrade
from odm_agent.control.client import AgentNotRunning, ControlClient
from odm_agent.core.errors import OdmError
from odm_agent.datapath import abi
from odm_agent.datapath.install import pins, swap
from odm_agent.datapath.install.deployment import Deployment


def upgrade(path: Path, *, forget_sockets: bool = False) -> Upgrade:
    """Replace programs and maps that are of another version; what was replaced.

    The configuration is checked and the programs are compiled and verified before anything is
    touched. A running agent goes on if it can work with the new maps, and is stopped if it can't.
    Raises OdmError.
    """
    config, warnings = read_config(path)
    wanted = wanted_by(config)
    running = _running(config)
    if running is not None:
        _refuse_elsewhere(running, wanted)
    else:
        pins.require_unclaimed(wanted.pin_dir)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = stop_agent(Path(config.agent.socket), wanted.pin_dir, wanted.netns_cookie)

    def before_swap(staged: swap.Staged) -> None:
        """It wrote maps that the new programs don't read, or holds those that are replaced."""
        if running is not None and (running.abi != abi.ABI_TAG or staged.fresh):
            stop()

    state = open_state(path, config, forget_sockets=forget_sockets, before_swap=before_swap)
    try:
        if running is not None and running.abi != abi.ABI_TAG and not stopped:
            stop()
        if running is None or stopped:
            state.converge()
    finally:
        state.close()
    agent: Literal["running", "stopped", "none"] = "none"
    if running is not None:
        agent = "stopped" if stopped else "running"
    if state.replaced is None:
        return Upgrade(agent=agent, warnings=warnings)
    return Upgrade(
        agent=agent,
        programs=state.replaced.programs,
        new_maps=list(state.replaced.new_maps),
        removed_maps=list(state.replaced.removed_maps),
        warnings=warnings,
    )


def _running(config: Config) -> Status | None:
    try:
        with ControlClient(config.agent.socket) as client:
            return client.ask("status", Status)
    except AgentNotRunning:
        return None


def _refuse_elsewhere(running: Status, wanted: Deployment) -> None:
    """Its places can't change under it, nor may it be served from another namespace."""
    is_same = (
        running.pin_dir == str(wanted.pin_dir)
        and running.cgroup == str(wanted.cgroup)
        and running.namespace_cookie == wanted.netns_cookie
    )
    if not is_same:
        raise OdmError(
            f"the running agent (pid {running.pid}) works on {running.pin_dir} and"
            f" {running.cgroup} in its network namespace, the configuration wants"
            f" {wanted.pin_dir} and {wanted.cgroup} here; run this where it runs, or stop it first"
        )
