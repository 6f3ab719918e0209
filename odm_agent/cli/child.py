"""Work that must happen in a process of its own: it changes cgroup, namespace or identity."""

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

from odm_agent.core.errors import OdmError

T = TypeVar("T")


class ChildError(OdmError):
    """The child process did not do its work."""


def in_child(work: Callable[[], T], doing: str) -> T:
    """What `work` returns (or the OdmError it raises) in a forked child, which then ends.

    `doing` begins the message of the ChildError for everything else that can go wrong there.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            try:
                pickle.dump((True, work()), pipe)
            except OdmError as error:
                pickle.dump((False, error), pipe)
            except BaseException:
                pickle.dump((False, ChildError(f"{doing}: {traceback.format_exc()}")), pipe)
        # Not sys.exit: the parent's exit handlers and buffers are not ours to run.
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise ChildError(f"{doing}: the child process ended early (wait status {status:#x})")
    worked, value = pickle.loads(data)
    if not worked:
        raise value
    result: T = value
    return result
