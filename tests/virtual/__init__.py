"""A host in memory with a clock that the test moves: the agent's own driver, machine and engine.

Only what would touch a kernel or wait for real is replaced: netlink and maps by their fakes, the
network of a source by a script, waiting callers by a book of who waits.
"""
