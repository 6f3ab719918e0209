"""`make demo`: unmodified programs, each served by the source address of its class.

The network is the tests' laboratory (`tests.lab`): what is shown here is then what is tested.
"""
