"""The typed prefix table and the addresses made from its prefixes (pure)."""
