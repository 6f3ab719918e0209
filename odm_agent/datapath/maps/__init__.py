"""The rows of the pinned maps: read, written, and as the values of the core."""
