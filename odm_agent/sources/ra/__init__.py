"""Types of prefixes that routers announce (draft-feng-dmm-ra-prefixtype): hints, never grants."""
