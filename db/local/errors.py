"""The error of the local database, which every module of the package raises."""


class LocalDatabaseError(Exception):
    """The local database cannot be had; the message says what to do about it."""
