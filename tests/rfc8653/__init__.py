"""Tests of the RFC's requirements; each name begins with the ID in tests/requirements.py."""
