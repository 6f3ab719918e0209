"""Examples: applications of the API in `c/` and `python/`, the demo in `demo/`."""
