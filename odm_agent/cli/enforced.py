"""Whether anything is enforced while no agent runs, in words."""

import os
from pathlib import Path
from typing import NamedTuple


class _Attached(NamedTuple):
    """How many programs `pinned` in a folder are attached to a cgroup, and how many with names as
    ours have are attached to a certain `cgroup`; `of` so many that there are."""

    pinned: int
    cgroup: int
    of: int


def pinned_sentence(pin_dir: Path, cgroup: str = "") -> str:
    """Whether enforcement goes on without the agent, told from its pins and its cgroup ("": the
    root)."""
    try:
        is_there = bool(os.listdir(pin_dir))
        found = _attached(pin_dir, cgroup)
    except FileNotFoundError:
        is_there, found = False, _attached(Path("/nowhere"), cgroup)
    except PermissionError:
        return f"Whether anything is enforced cannot be told: {pin_dir} is only readable to root."
    if found is None:
        return "Whether anything is enforced cannot be told: only root may look at programs."
    if found.pinned:
        much = "goes on" if found.pinned == found.of else "goes on in part"
        return (
            f"Enforcement {much} without the agent: {found.pinned} of its {found.of} programs are"
            f" pinned in {pin_dir} and attached. `odm-agent detach` removes them."
        )
    pinned = f"What is pinned in {pin_dir} is attached to no cgroup"
    if not is_there:
        pinned = f"Nothing is pinned in {pin_dir}"
    if found.cgroup:
        return (
            f"{pinned}, but {found.cgroup} programs called as ours are attached: it is enforced by"
            " programs whose pins are hidden (a bpf file system is mounted over them), or are"
            " another agent's. `odm-agent run` pins its own anew."
        )
    return f"{pinned}: nothing is enforced."


def _attached(pin_dir: Path, cgroup: str) -> _Attached | None:
    """What is attached; None: this process may not look."""
    from odm_agent.cli.doctor import bpf
    from odm_agent.cli.doctor.programs import OUR_PREFIX
    from odm_agent.core.errors import OdmError
    from odm_agent.datapath import catalogue
    from odm_agent.datapath.install import pins
    from odm_agent.kernel.cgroups import find_root

    try:
        pinned = sum(bool(link.cgroup_id) for link in pins.attached(pin_dir).values())
        fd = os.open(cgroup or find_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # a cgroup that is not there has no programs
        return _Attached(pinned, 0, len(catalogue.CGROUP))
    except (OSError, OdmError):
        return None
    try:
        hooks = [bpf.attached(fd, ours.attach_type) for ours in catalogue.CGROUP.values()]
    except OSError:  # not root
        return None
    finally:
        os.close(fd)
    named = sum(name.startswith(OUR_PREFIX) for hook in hooks for name in hook.names)
    return _Attached(pinned, named, len(catalogue.CGROUP))
