"""What of the agent these tests are ahead of: a word goes when its feature is there."""

from typing import Final

#: "refuse": the class option of that name. "forwarded": the prefix key of that name.
PENDING: Final[frozenset[str]] = frozenset()
