"""What networks answer is counted and told, but for what is no news."""

from ipaddress import IPv6Network

from odm_agent.agent.event_log import EventLog
from odm_agent.agent.network_notes import NetworkNotes
from odm_agent.core.events import Failure
from odm_agent.core.model import AddressType
from odm_agent.sources.base import Noted, Outcome

NET = IPv6Network("2001:db8:1::/64")
FIXED = AddressType.FIXED
SOURCE = "delegation:isp"


def test_a_prefix_that_came_is_counted_and_told() -> None:
    notes, events = NetworkNotes(), EventLog()
    notes.note(SOURCE, Noted(Outcome.GRANTED, FIXED, NET, took_s=0.3), events, 1e9)
    notes.note(SOURCE, Noted(Outcome.GRANTED, FIXED, NET, asked=True), events, 1e9)
    assert notes.outcomes == {(FIXED, "granted"): 2}
    (told,) = events.after(0)  # what was requested is told as that
    assert (told.event, told.prefix, told.type) == ("granted", "isp/fixed", "fixed")
    assert (told.address, told.detail) == (str(NET), None)


def test_a_renewal_is_counted_and_no_news() -> None:
    notes, events = NetworkNotes(), EventLog()
    notes.note(SOURCE, Noted(Outcome.RENEWED, FIXED, NET), events, 1e9)
    assert notes.outcomes == {(FIXED, "renewed"): 1}
    assert not events.after(0)


def test_why_none_came_is_counted_and_told() -> None:
    notes, events = NetworkNotes(), EventLog()
    for failure in Failure:
        noted = Noted(Outcome.FAILED, FIXED, None, "no server answers", 10.0, failure)
        notes.note(SOURCE, noted, events, 1e9)
    assert {outcome for _, outcome in notes.outcomes} == {"unsupported", "refused", "timed-out"}
    told = events.after(0)[0]
    assert (told.event, told.detail, told.address) == ("failed", "no server answers", None)
