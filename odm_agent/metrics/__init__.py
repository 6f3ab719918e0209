"""Prometheus metrics: `readings` says what is read, `collector` names it, `endpoint` serves it.

Labels are bounded by the configuration: class, type, family, verdict, reason, hook, state. Names of
processes and addresses are never labels.
"""
