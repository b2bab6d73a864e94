"""The errors of a stack."""


class StackError(Exception):
    """Something could not be started, or ended by itself."""
