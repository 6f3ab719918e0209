"""What sockets keep when the class of their cgroup has ended: switched off, removed, or moved."""

from collections.abc import Mapping

from odm_agent.core.model import UNCLASSIFIED, ClassPolicy
from odm_agent.core.projection import CgroupRow


def of_no_class(row: CgroupRow | None, in_force: Mapping[int, ClassPolicy]) -> CgroupRow:
    """The row of a cgroup that is of no class (any more), from the row that it had.

    `in_force` are the classes by which that row was judged. None: it had no row.
    """
    if row is None:
        return CgroupRow(UNCLASSIFIED)
    if row.class_id == UNCLASSIFIED:
        return row
    policy = in_force.get(row.class_id)
    return CgroupRow(UNCLASSIFIED, kept=policy.allow if policy else frozenset())
