"""Logging of a command, as the environment says."""

import logging.config
import sys
from typing import Any

from pydantic import ValidationError

from mdp_core.logs import log_config
from mdp_core.settings import LogSettings
from scripts.cli.options import clear_errors

# Commands that begin with telling all that is wrong, a line each.
_TELL_ALL = ("check", "api", "syncer", "repair", "verify", "backfill")


def configure_logging(command: str | None) -> None:
    """Log as the environment says from now on."""
    with clear_errors():
        try:
            settings = LogSettings()
        except ValidationError:
            if command not in _TELL_ALL:
                raise
            settings = LogSettings.model_construct()  # the command tells it with what else is wrong
        logging.config.dictConfig(log_settings(settings))


def log_settings(settings: LogSettings) -> dict[str, Any]:
    """Return the configuration of the standard library's logging."""
    return log_config(settings.log_level, settings.log_format, is_terminal=sys.stderr.isatty())
