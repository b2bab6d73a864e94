"""Numbers as exchanges print them: the shortest decimals that read back the same."""

import numpy as np


def decimal(number: float) -> str:
    """Print a number without an exponent, whole ones with `.0`."""
    text = repr(number)
    return np.format_float_positional(number, trim="0") if "e" in text else text


def shortest(number: float) -> str:
    """Print a number without an exponent, whole ones without a point."""
    return decimal(number).removesuffix(".0")


def quoted(number: float) -> str:
    """Print a number as a string of JSON; `null` for what is not known."""
    return "null" if np.isnan(number) else f'"{shortest(number)}"'
