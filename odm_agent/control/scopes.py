"""The names of the cgroups in which `odm-agent exec` starts commands.

The name alone says class and type, so that an agent which starts later can classify the cgroups
of commands that are still running. Class names hold no dot, so the parts cannot be confused.

The names are those of a systemd slice and of scopes in it: where systemd runs it makes the very
same cgroups, so that nobody else has to tell the two apart.
"""

from dataclasses import dataclass
from typing import Final

from odm_agent.core.model import AddressType

#: The cgroup below the attach point that holds one cgroup per command.
PARENT: Final = "odm.slice"
_SUFFIX: Final = ".scope"
#: Stands for "the class's own default" in a name.
CLASS_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Scope:
    """One command's cgroup: `pid` is the process that waits for the command."""

    class_name: str
    type: AddressType | None
    pid: int

    @property
    def name(self) -> str:
        """The cgroup's name below its parent, e.g. `ssh.session-lasting.4711.scope`."""
        word = self.type.word if self.type is not None else CLASS_DEFAULT
        return f"{self.class_name}.{word}.{self.pid}{_SUFFIX}"


def parse(name: str) -> Scope | None:
    """The scope called `name`; None if the name is not one of ours."""
    if not name.endswith(_SUFFIX):
        return None
    parts = name.removesuffix(_SUFFIX).split(".")
    if len(parts) != 3 or not parts[0] or not parts[2].isdecimal():
        return None
    class_name, word, pid = parts
    if word == CLASS_DEFAULT:
        return Scope(class_name, None, int(pid))
    try:
        return Scope(class_name, AddressType.from_word(word), int(pid))
    except ValueError:
        return None
