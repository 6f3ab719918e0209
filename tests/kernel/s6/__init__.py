"""Requirement S6: who asks for nothing is served as if the agent had never been installed."""
