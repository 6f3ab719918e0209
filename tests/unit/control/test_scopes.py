"""The names of exec's cgroups say class and type, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.control.scopes import Scope, parse
from odm_agent.core.model import TYPES, AddressType


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True),
    st.one_of(st.none(), st.sampled_from(TYPES)),
    st.integers(1, 2**22),
)
def test_a_name_says_what_its_scope_is(name: str, kind: AddressType | None, pid: int) -> None:
    scope = Scope(name, kind, pid)
    assert parse(scope.name) == scope


@pytest.mark.parametrize(
    "name",
    [
        *("", ".scope", "ssh.scope", "ssh.fixed.scope", "ssh.fixed.1", "ssh.fast.1.scope"),
        *("ssh.fixed.x.scope", "..1.scope", "a.b.c.d.scope", "session-3.scope"),
    ],
)
def test_other_names_are_no_scopes(name: str) -> None:
    assert parse(name) is None
