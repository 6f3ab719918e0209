"""Which classes may have their MPTCP connections follow a handover."""

from pathlib import Path

import pytest

from odm_agent.config.load import parse
from odm_agent.core.errors import ConfigError

FOLLOWS = '[classes.a]\nmptcp = "endpoints"\nallow = ["graceful-replacement", "fixed"]\n'


def test_a_class_that_may_have_what_a_handover_gives_up() -> None:
    assert parse(FOLLOWS, Path("f.toml")).classes["a"].mptcp == "endpoints"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[classes.a]\nmptcp = "endpoints"\nallow = ["fixed"]\n', "classes.a.mptcp: only"),
        (FOLLOWS + 'refuse = ["mptcp"]\n', "classes.a.mptcp: the class is refused"),
        (FOLLOWS + "[classes.a.caps.fixed]\nsockets = 1\n", "classes.a.mptcp: subflows"),
        (FOLLOWS + 'mode = "audit"\n', "classes.a.mode: audit would"),
        (FOLLOWS + '[classes.b]\nmode = "off"\n', "classes.b.mode: off would"),
        (FOLLOWS + '[unclassified]\nmode = "audit"\n', "unclassified.mode: audit would"),
    ],
)
def test_what_would_let_others_leave_from_there_is_refused(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("f.toml"))
    (message,) = str(caught.value).splitlines()
    assert where in message


def test_where_no_class_wants_it_nothing_is_asked_of_others() -> None:
    parse('[classes.b]\nmode = "audit"\n[unclassified]\nmode = "audit"\n', Path("f.toml"))
