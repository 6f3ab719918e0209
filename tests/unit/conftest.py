"""Unit tests run as anybody; what only root can do is skipped for others."""

import os

import pytest

from odm_agent.control import server


@pytest.fixture(autouse=True)
def whoever_runs_the_tests_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the control sockets that tests open."""
    monkeypatch.setattr(server, "_ROOT", os.geteuid())
