"""Libraries that are installed only where a caller wants what needs them."""

from importlib import import_module
from types import ModuleType

from mdp_client.errors import MissingExtra


def need(library: str, extra: str, wanted: str) -> ModuleType:
    """Import a library of an extra for the method that is named `wanted`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        detail = f"{wanted} needs {library}: pip install 'mdp-client[{extra}]'"
        raise MissingExtra(detail=detail) from error


def find(library: str) -> ModuleType | None:
    """Import a library if it is installed."""
    try:
        return import_module(library)
    except ModuleNotFoundError:
        return None
