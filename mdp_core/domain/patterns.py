"""Lists of names and globs, separated by commas, in any case. Pure."""

import fnmatch

_GLOB_CHARACTERS = frozenset("*?[")


def split_names(text: str) -> tuple[str, ...]:
    """Split names at commas; what is empty goes."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def is_glob(pattern: str) -> bool:
    """Tell whether a pattern may stand for several names."""
    return not _GLOB_CHARACTERS.isdisjoint(pattern)


def matches(name: str, pattern: str) -> bool:
    """Tell whether a glob, or a name, stands for `name`, without regard to case."""
    return fnmatch.fnmatchcase(name.casefold(), pattern.casefold())
