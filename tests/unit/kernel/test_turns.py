"""Owners take turns, however much work one of them makes."""

from odm_agent.kernel.turns import Turns


def test_who_has_little_to_do_does_not_wait_for_who_has_much() -> None:
    turns: Turns[int] = Turns()
    for job in range(10_000):
        turns.put(65534, job)
    turns.put(0, 1)
    turns.put(1000, 2)
    assert [turns.take() for _ in range(4)] == [(65534, 0), (0, 1), (1000, 2), (65534, 1)]


def test_each_job_waits_once_and_in_its_owners_order() -> None:
    turns: Turns[str] = Turns()
    for job in ("a", "b", "a"):
        turns.put(1, job)
    turns.put(1, "first", first=True)
    assert turns.waiting(1) == 3 and turns.waiting(2) == 0
    assert [turns.take() for _ in range(4)] == [(1, "first"), (1, "a"), (1, "b"), None]
    assert not turns
