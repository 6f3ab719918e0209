"""What a cgroup's row says when its class has ended."""

from odm_agent.core.model import TYPES, AddressType, ClassPolicy, Mode
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath.maps import rows
from odm_agent.policy.ended import of_no_class

_FIXED = frozenset({AddressType.FIXED})
_IN_FORCE = {7: ClassPolicy(id=7, name="ours", allow=_FIXED, mode=Mode.ENFORCE)}


def test_types_of_the_class_in_force_are_kept() -> None:
    assert of_no_class(CgroupRow(7, AddressType.FIXED), _IN_FORCE) == CgroupRow(0, kept=_FIXED)


def test_class_that_nobody_knows_any_more_leaves_nothing() -> None:
    assert of_no_class(CgroupRow(8), _IN_FORCE) == CgroupRow(0)


def test_what_was_kept_stays() -> None:
    """Whatever the class of that time would allow by now."""
    assert of_no_class(CgroupRow(0, kept=_FIXED), {}) == CgroupRow(0, kept=_FIXED)


def test_cgroup_that_never_had_a_class_keeps_nothing() -> None:
    assert of_no_class(None, _IN_FORCE) == CgroupRow(0)


def test_row_of_the_map_has_each_type() -> None:
    for kept in (frozenset[AddressType](), _FIXED, frozenset(TYPES)):
        row = CgroupRow(0, kept=kept)
        assert rows.unpack_cgroup(rows.pack_cgroup(row)) == row
