"""The one error of the local database, apart so that every `db.local*` module can raise it."""


class LocalDatabaseError(Exception):
    """The local database cannot be had; the message says what to do about it."""
