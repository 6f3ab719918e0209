"""What a newcomer runs, run as he does: the examples, the demo, the commands."""
