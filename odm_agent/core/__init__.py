"""The words of RFC 8653, the host, and what is to be done to it, as frozen values: stdlib only."""
