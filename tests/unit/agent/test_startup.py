"""What an agent that starts knows before its machine has taken a step."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from odm_agent.agent import startup
from odm_agent.core.clock import Moment
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.core.wandering import begins_s, wanderers_of

NET = IPv6Network("2001:db8:1::/64")
STAYS = TypedPrefix(
    3, "web", AddressType.NONPERSISTENT, NET, "w0", None, Placement.DELEGATED, (NET,)
)
WANDERS = replace(STAYS, id=4, wander_s=600)


@pytest.mark.parametrize("early", [0, 1])
def test_it_goes_on_in_the_period_that_it_is(early: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that it loads or upgrades begin with the order of now, granted prefixes included."""
    wanderers = wanderers_of(WANDERS)
    assert wanderers is not None
    now_s = begins_s(wanderers, 1000) - early
    monkeypatch.setattr(startup, "now", lambda: Moment(now_s, 1.8e9))
    granted = Lease(Grant(GrantKey("pd", "1"), replace(WANDERS, id=5), Lifetime(1e9, 2e9)))
    known = startup._known([STAYS, WANDERS], [granted])
    assert {each.id: each.period for each in known} == {3: 0, 4: 1000 - early, 5: 1000 - early}
