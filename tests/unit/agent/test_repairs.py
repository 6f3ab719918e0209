"""What had gone is told once, and shortly, however often it goes."""

from odm_agent.agent.repairs import Repairs
from tests.unit.agent.test_engine import HOME6, NET6, engine


def test_what_somebody_took_away_is_named_and_our_own_changes_are_not() -> None:
    made, kernel, maps = engine(HOME6)
    made.converge()
    assert made.take_vanished() == [], "it was built, not put back"
    (address,) = made.table.addresses_of(1)
    kernel.vanish(address, "lo")
    rule = next(rule for rule in kernel.rules if rule.source == NET6 and rule.table > 1000)
    kernel.rules.discard(rule)
    made.converge()
    vanished = made.take_vanished()
    assert f"address {address} on lo" in vanished
    assert f"rule {rule.priority} from {NET6}" in vanished
    assert made.take_vanished() == [], "told once"
    made.table = made.table.with_only([])
    made.converge()
    assert made.take_vanished() == []
    assert maps.read().spans == {}


def test_an_uplink_that_goes_down_and_comes_back_is_no_repair() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge()
    for up in (False, True):
        kernel.set_link("eth0", up)
        made.converge()
    assert made.take_vanished() == []


def test_lines_are_few_and_short() -> None:
    repairs = Repairs()
    assert repairs.due(0) is None
    repairs.note(["rule 1"])
    assert repairs.due(0) == "rule 1"
    for number in range(1000):
        repairs.note([f"rule {number}"])
        assert repairs.due(1 + number / 1000) is None
    line = repairs.due(11)
    assert line is not None
    assert line.startswith("rule 0, rule 1, ") and line.endswith(" and 995 more")
    assert len(line) < 100
    assert repairs.due(60) is None
