"""Processes that we start end, or their failure is ours to tell."""

import pytest

from odm_agent import isolated


def test_what_takes_too_long_is_ended_and_said() -> None:
    with pytest.raises(isolated.TooSlow, match=r"longer than 0 s; try again"):
        isolated.run(isolated.LOADER, "--check", timeout_s=0.01)
