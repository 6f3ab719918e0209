"""The control socket: how the command line talks to the agent that runs.

One request per line, one answer per line, both JSON. `shapes` are the answers' words, `server`
belongs to the agent, `client` to the command line, `scopes` names the cgroups of `exec`.
"""
