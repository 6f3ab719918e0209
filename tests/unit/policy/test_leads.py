"""Following patterns component by component finds what matching whole paths finds."""

from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.model import ClassPolicy
from odm_agent.policy.globs import class_of, match, parts_of
from odm_agent.policy.leads import Leads

PARTS = st.sampled_from(["a", "b", "ab", "*", "a*", "[ab]", "?b"])
PATTERNS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)


@given(st.lists(st.lists(PATTERNS, max_size=3), max_size=4), NAMES)
def test_leads_end_where_patterns_match(classes: list[list[str]], names: list[str]) -> None:
    policies = [ClassPolicy(id=n, name=f"c{n}", cgroups=tuple(p)) for n, p in enumerate(classes, 1)]
    at: Leads | None = Leads.of(policies, "scopes/*")
    for depth, name in enumerate(names):
        leading = any(
            len(parts_of(p)) > depth
            and match("/".join(parts_of(p)[:depth]), "/".join(names[:depth]))
            for policy in policies
            for p in policy.cgroups
        )
        assert (at is not None and at.lead_on) or not leading
        at = at.below(name) if at is not None else None
    path = "/".join(names)
    found = at.ended[0].policy if at is not None and at.ended else None
    assert found is class_of(path, policies)


def test_scopes_count_before_what_classes_name() -> None:
    named = ClassPolicy(id=1, name="c", cgroups=("scopes/x",))
    at = Leads.of([named], "scopes/*").below("scopes")
    assert at is not None
    ended = at.below("x")
    assert ended is not None and [lead.policy for lead in ended.ended] == [None, named]
