"""Which maps in force this version's programs can work on, too."""

from pathlib import Path

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf
from odm_agent.datapath.catalogue import BESIDE, MAPS, TOGETHER


def shareable(pin_dir: Path, *, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """The maps pinned there that this version's programs can work on, too.

    DatapathError names those that can't be what their name says.
    """
    found = {name for name in MAPS if (pin_dir / name).exists()} - without
    wrong = []
    for name in sorted(found):
        with libbpf.opened(libbpf.get_pinned(pin_dir / name)) as fd:
            differences = MAPS[name].differences(libbpf.map_info(fd))
        if differences:
            wrong.append(f"{name} has {', '.join(differences)}")
    if wrong:
        raise DatapathError(
            f"the maps pinned in {pin_dir} are not those of this version: {'; '.join(wrong)}."
            " Go back to the version that made them, or run `odm-agent detach` (which ends"
            " enforcement), then start again"
        )
    for group in TOGETHER:
        if not found.issuperset(group):
            found.difference_update(group)
    found -= {name for name, other in BESIDE.items() if other not in found}
    return frozenset(found)
