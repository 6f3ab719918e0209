"""The cgroups to which patterns lead, followed by what events name, a bounded piece at a time."""

import os
from collections import Counter, OrderedDict
from itertools import islice
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.kernel.cgroup_watch import CgroupQueue, CgroupWatch, Ended, Overflow
from odm_agent.kernel.cgroups import GONE, writable
from odm_agent.kernel.turns import Turns
from odm_agent.policy.leads import Lead, Leads
from odm_agent.text import printable

#: The owner of directories in which nobody but root makes cgroups.
ROOT: Final = 0
#: How many cgroups of one owner are known at most, and in how many of them more are looked for.
MOST_KNOWN: Final = 16_384
MOST_FOLDERS: Final = 1024
#: How many names of one owner wait at most; of more, their directory is listed.
MOST_WAITING: Final = 4096


class Known:
    """A cgroup to which patterns lead. Compared by identity: one made anew is another.

    `ended` are the patterns that name it. Of one below which patterns lead (`leads`), `inside` says
    why others than root can make cgroups there (None: they can't), and `owner` whose work that is.
    """

    __slots__ = (
        *("above", "below", "ended", "inside", "leads", "name", "number", "owner", "watch"),
        "whose",
    )

    def __init__(self, name: str, above: "Known | None", number: int) -> None:
        self.name = name
        self.above = above
        self.number = number
        #: Who could make it, when it was found.
        self.whose: int = above.owner if above is not None else ROOT
        self.ended: tuple[Lead, ...] = ()
        self.leads: Leads | None = None
        self.inside: str | None = None
        self.owner: int = ROOT
        self.watch: tuple[CgroupQueue, int] | None = None
        self.below: dict[str, Known] = {}

    @property
    def parts(self) -> tuple[str, ...]:
        """The components of its path; the root has none."""
        parts = []
        each = self
        while each.above is not None:
            parts.append(each.name)
            each = each.above
        return tuple(reversed(parts))

    @property
    def untrusted(self) -> str | None:
        """Why others than root could have made it; None: they couldn't."""
        return self.above.inside if self.above is not None else None


class _Listing:
    """What is left of the names in a directory; a deep one goes on below.

    `again`: whether it is to be listed once more, and deep.
    """

    def __init__(self, folder: Known, path: Path, *, deep: bool) -> None:
        self.folder = folder
        self.deep = deep
        self.again: bool | None = None
        most = None if folder.owner == ROOT else MOST_KNOWN
        try:
            with os.scandir(path) as entries:
                folders = (each.name for each in entries if each.is_dir(follow_symlinks=False))
                self.names = list(islice(folders, most))
        except OSError as error:
            self.names = []
            if error.errno not in GONE:
                raise KernelError(
                    f"listing the cgroups in {printable(str(path))}: {error.strerror}."
                    " It is tried again."
                ) from error
        self.unseen = folder.below.keys() - set(self.names)


#: A name to look at in a directory; None: list it, True: and all below it.
_Job = tuple[Known, str | bool]


class Hierarchy:
    """Follows the directories below `root` in which patterns look.

    `step` does some of the work; each owner of directories has his turn. What was found other than
    before is in `changed`. A directory that was found is watched at once but listed only after
    `told`, so that the caller can let programs look there before. `looked` counts the system's
    answers that were asked for: one for each name.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._watch = CgroupWatch()
        self._top: Known | None = None
        self._leads = Leads()
        self._report_all = False
        self._turns: Turns[_Job] = Turns()
        self._listings: dict[int, _Listing] = {}
        self._watched: dict[tuple[int, int], Known] = {}
        self._size: Counter[int] = Counter()
        self._folders: Counter[int] = Counter()
        #: Those below which patterns lead, by the kernel's number.
        self.folders: dict[int, Known] = {}
        #: Found and not told of yet; whether each is to be listed with all below.
        self.untold: dict[Known, bool] = {}
        #: What was found: by the kernel's number; None: it is gone, or no pattern leads there.
        self.changed: OrderedDict[int, Known | None] = OrderedDict()
        self.looked = 0
        #: Why directories are not watched that should be; None: all are.
        self.trouble: str | None = None

    def close(self) -> None:
        """Watch nothing any more."""
        self._watch.close()

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._watch.fileno()

    def drain(self) -> bool:
        """Take the events away, for `step`; whether there were any. May be called by any thread."""
        return self._watch.drain()

    def follow(self, leads: Leads, *, report_all: bool = False) -> None:
        """Look where these patterns lead, from now on.

        `report_all`: what is there beside what they name is in `changed`, too, but not followed.
        """
        self._leads = leads
        self._report_all = report_all
        self.look_again()

    def look_again(self) -> None:
        """Look at everything anew, piece by piece."""
        self.trouble = None
        self._look_at_root(deep=True)

    @property
    def is_behind(self) -> bool:
        """Whether there is work left."""
        return bool(self._turns or self._listings or self.untold or self.changed) or not (
            self._watch.own.is_drained and self._watch.foreign.is_drained
        )

    @property
    def is_behind_root(self) -> bool:
        """The same of what root has brought about."""
        return bool(
            self._turns.waiting(ROOT)
            or ROOT in self._listings
            or any(folder.owner == ROOT for folder in self.untold)
            or not self._watch.own.is_drained
        )

    def told(self) -> None:
        """The caller knows the folders in `untold`: they may be listed."""
        for folder, deep in self.untold.items():
            self._list(folder, deep=deep)
        self.untold = {}

    def step(self, most: int) -> None:
        """Look at so many names at most. Raises KernelError."""
        self._take_events(self._watch.own)
        self._take_events(self._watch.foreign)
        for _ in range(most):
            if (turn := self._turns.take()) is None:
                return
            try:
                self._do(*turn)
            except KernelError:
                self._turns.put(*turn)
                raise

    def visit(self, parts: tuple[str, ...]) -> None:
        """Look at one path now; what was found comes first in `changed`. Raises KernelError."""
        self._look_at_root(deep=False)
        at = self._top
        for name in parts:
            if at is None or at.leads is None:
                return
            self._look(at, name, deep=False)
            at = at.below.get(name)
        if at is not None and at.number in self.changed:
            self.changed.move_to_end(at.number, last=False)

    # --- what is to be looked at ----------------------------------------------------------------

    def _take_events(self, queue: CgroupQueue) -> None:
        for event in queue.events():
            if isinstance(event, Overflow):
                self._list_all(queue)
                continue
            folder = self._watched.get((queue.fileno(), event.watch))
            if isinstance(event, Ended):
                self._watched.pop((queue.fileno(), event.watch), None)
            elif folder is not None and event.name:
                self._put(folder, event.name)
            elif folder is not None:
                self._check(folder)

    def _put(self, folder: Known, name: str) -> None:
        if folder.owner != ROOT and self._turns.waiting(folder.owner) >= MOST_WAITING:
            self._list(folder, deep=False)
        else:
            self._turns.put(folder.owner, (folder, name))

    def _list(self, folder: Known, *, deep: bool) -> None:
        listing = self._listings.get(folder.owner)
        if listing is not None and listing.folder is folder:
            listing.again = deep or bool(listing.again)
        else:
            self._turns.put(folder.owner, (folder, deep))

    def _check(self, folder: Known) -> None:
        """Its owner may be another one."""
        if folder.above is not None:
            self._put(folder.above, folder.name)
        else:
            self.look_again()

    def _list_all(self, queue: CgroupQueue) -> None:
        """Events were lost: look again at what root makes, or at what the others do."""
        if queue is self._watch.own:
            self.look_again()
            return
        for folder in self.folders.values():
            if folder.inside is not None and folder.untrusted is None:
                self._list(folder, deep=True)

    def _do(self, owner: int, job: _Job) -> None:
        folder, what = job
        if isinstance(what, str):
            self._look(folder, what, deep=False)
            return
        listing = self._listings.pop(owner, None)
        if folder.leads is None:
            return  # no pattern leads below it any more
        if listing is None or listing.folder is not folder:
            listing = _Listing(folder, self._path(folder), deep=what)
        if listing.names:
            self._look(folder, listing.names.pop(), deep=listing.deep)
        if listing.names:
            self._listings[owner] = listing
            self._turns.put(owner, job, first=True)
            return
        for name in listing.unseen:
            self._turns.put(owner, (folder, name))
        if listing.again is not None:
            self._list(folder, deep=listing.again)

    # --- looking --------------------------------------------------------------------------------

    def _path(self, known: Known) -> Path:
        return self._root.joinpath(*known.parts)

    def _number(self, path: Path) -> int | None:
        """The kernel's number of a cgroup; None: there is none."""
        self.looked += 1
        try:
            return path.stat().st_ino
        except OSError as error:
            if error.errno in GONE:
                return None
            raise KernelError(
                f"looking up the cgroup {printable(str(path))}: {error.strerror}."
                " It is tried again."
            ) from error

    def _look_at_root(self, *, deep: bool) -> None:
        number = self._number(self._root)
        if self._top is not None and self._top.number != number:
            self._forget(self._top)
            self._top = None
        if number is None:
            return
        if self._top is None:
            self._top = Known("", None, number)
        self._open(self._top, self._leads, deep=deep)

    def _look(self, above: Known, name: str, *, deep: bool) -> None:
        """Find out what a name stands for now. Raises KernelError."""
        if above.leads is None:
            return  # no pattern leads below it any more
        known, leads = above.below.get(name), above.leads.below(name)
        wanted = leads is not None or self._report_all
        number = self._number(self._path(above) / name) if wanted else None
        if known is not None and known.number != number:
            self._forget(known)
            known = None
        if number is None:
            return
        if leads is None:
            if known is not None:
                self._forget(known)
            else:
                self.changed[number] = Known(name, above, number)
            return
        if known is None:
            if above.owner != ROOT and self._size[above.owner] >= MOST_KNOWN:
                return
            known = above.below[name] = Known(name, above, number)
            self._size[known.whose] += 1
        known.ended = leads.ended
        self.changed[number] = known
        if leads.lead_on:
            self._open(known, leads, deep=deep)
        elif known.leads is not None:
            self._shut(known)

    def _open(self, known: Known, leads: Leads, *, deep: bool) -> None:
        """Look below it, too, if that is new, or if others may make cgroups there now."""
        path = self._path(known)
        above = known.above
        inside = known.untrusted or writable(path)
        owner = (above.owner if above is not None else ROOT) if inside is not None else ROOT
        if inside is not None:
            owner = self._uid(path) or owner or -1
        if known.leads is not None and (known.inside, known.owner) == (inside, owner):
            known.leads = leads
            if deep:
                self.untold[known] = True
                self._watch_in(known)
            return
        if known.leads is not None:
            self._unwatch(known)
        elif owner != ROOT and self._folders[owner] >= MOST_FOLDERS:
            return
        known.leads, known.inside, known.owner = leads, inside, owner
        self._folders[owner] += 1
        self.folders[known.number] = known
        self._watch_in(known)
        self.untold[known] = True

    def _watch_in(self, known: Known) -> None:
        """Be told of what happens in it. If that can't be, programs look there all the same."""
        if known.watch is not None:
            return
        queue = self._watch.own if known.inside is None else self._watch.foreign
        try:
            number = queue.watch(self._path(known))
        except KernelError as error:
            self.trouble = str(error)
            return
        if number is not None:
            known.watch = queue, number
            self._watched[queue.fileno(), number] = known

    def _uid(self, path: Path) -> int:
        try:
            return path.stat().st_uid
        except OSError:
            return ROOT

    def _unwatch(self, known: Known) -> None:
        self._folders[known.owner] -= 1
        if known.watch is not None:
            queue, number = known.watch
            queue.unwatch(number)
            self._watched.pop((queue.fileno(), number), None)
            known.watch = None

    def _shut(self, known: Known) -> None:
        """No pattern leads below it any more (or it is gone)."""
        self._unwatch(known)
        known.leads = None
        self.folders.pop(known.number, None)
        self.untold.pop(known, None)
        for below in list(known.below.values()):
            self._forget(below)

    def _forget(self, known: Known) -> None:
        if known.leads is not None:
            self._shut(known)
        if known.above is not None:
            self._size[known.whose] -= 1
            known.above.below.pop(known.name, None)
        self.changed[known.number] = None
