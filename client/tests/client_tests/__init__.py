"""Tests of the client: against a real demo, and against a real server that misbehaves."""
