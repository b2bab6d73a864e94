"""The outcome of the last request to an exchange."""

from dataclasses import dataclass

from mdp_core.errors import ExchangeRejected


@dataclass(slots=True)
class Contact:
    """The outcome of this process' last request to an exchange; None: none sent."""

    reachable: bool | None = None
    last_error: str | None = None

    def succeeded(self) -> None:
        """Note an answer that could be read."""
        self.reachable, self.last_error = True, None

    def failed(self, error: Exception) -> None:
        """Note a failure; an exchange that refuses one request is there."""
        self.reachable, self.last_error = isinstance(error, ExchangeRejected), str(error)
