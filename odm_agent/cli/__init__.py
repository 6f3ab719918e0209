"""The command line: nouns read, verbs write. One file per group of commands.

The only part that prints. Importing this package must stay cheap, since shell completion does it
at every key: commands import what they need when they run.
"""

from odm_agent.cli.app import main

__all__ = ["main"]
