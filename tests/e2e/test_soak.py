"""A short run of `make soak`, and that it would see what it is there to see."""

import subprocess
import sys
from pathlib import Path

from odm_agent.core.model import AddressType
from tests.soak.server import Judge

_ROOT = Path(__file__).parents[2]
FIXED, UNTYPED = "2001:db8:a1::1", "2001:db8:a::10"


def _soaked(*words: str, timeout_s: float) -> str:
    """What a soak prints that has found nothing wrong."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_short_soak_has_no_violation() -> None:
    said = _soaked("tests.soak", "--seconds", "12", "--seed", "8653", timeout_s=100)
    assert "soak: 0 violations" in said
    assert "killed" in said


def test_some_handovers_in_a_row_have_no_violation() -> None:
    said = _soaked("tests.soak.handover", "--handovers", "6", "--seed", "5", timeout_s=110)
    assert "handovers: 0 violations" in said


def test_the_correspondent_sees_what_is_wrong() -> None:
    judge = Judge()
    fixed = AddressType.FIXED.word
    assert judge.answer("udp", FIXED, f"fixed {fixed}") == b"ok\n"
    assert judge.answer("udp", UNTYPED, "plain untyped") == b"ok\n"
    assert not judge.violations
    for source, line in (
        (FIXED, "nothing untyped"),
        (FIXED, "fixed nonpersistent"),
        (UNTYPED, f"fixed {fixed}"),
        ("2001:db8:b3::1", "fixed nonpersistent"),
    ):
        assert judge.answer("tcp", source, line) != b"ok\n"
    assert len(judge.violations) == 4
