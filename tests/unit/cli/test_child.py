"""Work in a child: its result, its errors, and its death."""

import os
from typing import NoReturn

import pytest

from odm_agent.cli.child import ChildError, in_child
from odm_agent.core.errors import KernelError


def refused() -> NoReturn:
    raise KernelError("entering the cgroup /x: no")


def test_the_result_comes_back_from_another_process() -> None:
    assert in_child(os.getppid, "testing") == os.getpid()


def test_our_own_error_comes_back_as_it_is() -> None:
    with pytest.raises(KernelError, match="entering the cgroup /x: no"):
        in_child(refused, "testing")


def test_any_other_error_says_what_was_being_done() -> None:
    with pytest.raises(ChildError, match=r"(?s)testing: .*ZeroDivisionError"):
        in_child(lambda: 1 // 0, "testing")


def test_a_child_that_dies_is_an_error_not_a_hang() -> None:
    with pytest.raises(ChildError, match="testing: the child process ended early"):
        in_child(lambda: os._exit(3), "testing")
