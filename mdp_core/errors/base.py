"""The base of all errors."""

from typing import ClassVar, TypeVar

Failed = TypeVar("Failed", bound=BaseException)


class MdpError(Exception):
    """Anything this service raises on purpose."""

    code: ClassVar[str] = "internal_error"


def copied(error: Failed) -> Failed:
    """Return an error like this one for one more caller.

    An error that is raised more than once collects the traceback and the context of every caller.
    """
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__ |= error.__dict__
    twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
    return twin
