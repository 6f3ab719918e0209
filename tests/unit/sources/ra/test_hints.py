"""What routers say of types holds for as long as they said, and there is little of it."""

from ipaddress import IPv6Network

from odm_agent.core.model import AddressType
from odm_agent.sources.ra.codec import Advertised
from odm_agent.sources.ra.hints import MOST_HINTS, Hints

NET = IPv6Network("2001:db8:7::/64")
FIXED, SESSION = AddressType.FIXED, AddressType.SESSION_LASTING


def test_a_type_holds_until_it_is_over_or_another_one_is_said() -> None:
    hints = Hints().heard([Advertised(NET, FIXED, 60.0)], 100.0)
    assert hints.types == {NET: FIXED} and hints.deadline_s == 160.0
    assert hints.at(159.9).types and not hints.at(160.0).types
    assert hints.heard([Advertised(NET, SESSION, 5.0)], 110.0).types == {NET: SESSION}
    assert not hints.heard([Advertised(NET, FIXED, 0.0)], 110.0).types


def test_there_are_only_so_many_and_what_is_known_stays_known() -> None:
    many = [
        Advertised(IPv6Network(f"2001:db8:{n:x}::/64"), FIXED, 60.0) for n in range(2 * MOST_HINTS)
    ]
    hints = Hints()
    for each in many:
        hints = hints.heard([each], 0.0)
    assert hints.types.keys() == {each.network for each in many[:MOST_HINTS]}
    later = hints.heard([many[-1]], 61.0)
    assert later.types.keys() == {many[-1].network}
