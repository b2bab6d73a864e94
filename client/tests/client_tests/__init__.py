"""Tests of the client: against a real demo, and a real server that misbehaves."""
