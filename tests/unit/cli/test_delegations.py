"""How a delegation stands, in words."""

from odm_agent.cli.delegations import delegation_words
from odm_agent.control.answers import DelegatedView, DelegationView

BOUND = DelegatedView(
    type="fixed",
    state="bound",
    prefix="2001:db8:1::/64",
    preferred_seconds_left=3600.0,
    valid_seconds_left=7200.0,
    server="0001",
    router="fe80::1",
)


def words(*types: DelegatedView, linked: bool = True, trouble: str = "") -> list[str]:
    view = DelegationView(
        name="isp", interface="w0", linked=linked, trouble=trouble, types=list(types)
    )
    return list(delegation_words(view))


def test_what_is_held_is_told_with_its_lifetimes_and_who_gave_it() -> None:
    assert words(BOUND) == [
        "isp/fixed: bound, 2001:db8:1::/64 (preferred for 1h, valid for 2h), from server 0001 by"
        " fe80::1"
    ]


def test_what_has_no_end_is_told_so() -> None:
    endless = DelegatedView(type="fixed", state="bound", prefix="2001:db8:1::/64")
    assert words(endless) == [
        "isp/fixed: bound, 2001:db8:1::/64 (preferred without end, valid without end)"
    ]


def test_what_is_asked_for_is_told_with_what_the_network_said_last() -> None:
    asking = DelegatedView(
        type="fixed", state="asking", asked_for_seconds=65.0, trouble="no server answers"
    )
    assert words(asking) == ["isp/fixed: asking for 1m 5s, LAST: no server answers"]


def test_why_it_can_not_be_asked_is_told_first() -> None:
    idle = DelegatedView(type="fixed", state="idle")
    assert words(idle, linked=False, trouble="dhclient has the port") == [
        "isp: not asked on w0: dhclient has the port",
        "isp/fixed: idle",
    ]
    assert "no link-local address" in words(idle, linked=False)[0]
