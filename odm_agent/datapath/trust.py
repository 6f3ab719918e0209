"""Whose a pin folder is."""

from pathlib import Path

from odm_agent.core.errors import DatapathError
from odm_agent.folders import distrust


def require_trust(pin_dir: Path) -> None:
    """Refuse a folder that others could change (DatapathError).

    Anybody may make a folder in a bpf file system: what root did not make is not looked into.
    """
    if reason := distrust(pin_dir):
        raise DatapathError(
            f"{reason}: others could take away what is pinned in {pin_dir}; remove that folder, or"
            " choose another `agent.pin_dir`"
        )
