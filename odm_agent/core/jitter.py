"""Shortens what comes round by a little, so that not all of it comes at once."""

import hashlib
from typing import Final

#: RFC 8981, section 3.8: so that hosts and prefixes do not rotate all at once.
JITTER: Final = 0.1


def jitter(*of: int) -> float:
    """Up to `JITTER`, always the same for the same numbers, so that a restart changes no date."""
    digest = hashlib.sha256(" ".join(map(str, of)).encode()).digest()
    return JITTER * int.from_bytes(digest[:4], "big") / 2**32
