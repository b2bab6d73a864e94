"""A local server that speaks the exchanges' REST protocols.

The service runs and is tested against it without a network.
"""
