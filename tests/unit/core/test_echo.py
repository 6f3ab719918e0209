"""An uplink is dead after three questions that nobody answers, and alive after two answers."""

from odm_agent.core.echo import Echo


def after(*answers: bool, echo: Echo | None = None) -> Echo:
    echo = echo or Echo()
    for each in answers:
        echo = echo.after(answered=each)
    return echo


def test_a_single_loss_is_none() -> None:
    assert not after(False, False).dead
    assert not after(*(False, False, True) * 5).dead
    assert after(False, False, False).dead


def test_a_single_answer_is_no_recovery() -> None:
    dead = after(False, False, False)
    assert after(True, echo=dead).dead
    assert after(*(True, False) * 5, echo=dead).dead
    assert not after(True, True, echo=dead).dead
    assert after(True, True, False, False, False, echo=dead).dead
