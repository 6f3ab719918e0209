"""The reference network: access sites with stock servers that delegate prefixes by type.

`make netlab` brings it up to be looked at; tests make what they need of it (`topology`). What the
servers are told stands in vagrant/network, for machines of their own to be told the same.
"""
