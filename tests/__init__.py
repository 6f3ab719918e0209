"""Tests of odm-agent; their layout mirrors the source."""
