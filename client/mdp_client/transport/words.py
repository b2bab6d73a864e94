"""Failures of connections, in the system's own words."""

import ssl

from mdp_client.config import Config
from mdp_client.errors import ConnectionFailed, TimedOut


def failure_of(config: Config, error: Exception) -> ConnectionFailed:
    """Build the error of a connection that could not be made, or that broke."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    words = str(cause) or type(cause).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        words = f"the certificate can't be verified ({error.verify_message})"
    return ConnectionFailed(detail=f"{config.url}: {words}")


def silence_of(config: Config, seconds: float) -> TimedOut:
    """Build the error of a connection that was silent for too long."""
    return TimedOut(detail=f"{config.url}: no byte came for {seconds:g} s")
