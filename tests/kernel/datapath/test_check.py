"""`check` leaves no pins, nor those of one that was killed."""

import os
import subprocess
from pathlib import Path

from odm_agent.datapath.install import loader, pins
from tests.lab import run


def _left(number: int) -> Path:
    folder = Path(f"/sys/fs/bpf/odm-check-{number}")
    pins.make_folder(folder)
    return folder


def test_pins_of_a_killed_check_are_removed_by_the_next_one() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, working = _left(ended.pid), _left(os.getpid())
    claimed = _left(run.number() + 10_000_000)  # of a process in another PID namespace
    lock = pins.claim(claimed)
    try:
        loader._remove_left()
        assert not left.exists()
        assert working.exists()
        assert claimed.exists()
    finally:
        assert lock is not None
        os.close(lock)
        for folder in (left, working, claimed):
            pins.remove(folder)
