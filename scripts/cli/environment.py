"""The names of all environment variables of this project, and of compose."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic.fields import FieldInfo

from db.local.apt import SOURCES_VARIABLE
from db.local.programs import CACHE_VARIABLE
from db.local.server import KIND_VARIABLE
from mdp_core.settings import ExchangeSettings, Settings, UpgradeSettings
from mdp_core.wiring import installed_adapters

# What the compose file reads itself.
_COMPOSE_VARIABLES = (
    *("MDP_API_ADDRESS", "MDP_API_PORT", "MDP_DATABASE_PORT", "POSTGRES_PASSWORD"),
    *("MDP_API_CPUS", "MDP_DATABASE_CPUS", "MDP_SYNCER_CPUS"),
)
# Read by the client where it runs on the same machine.
_CLIENT_VARIABLES = ("MDP_URL", "MDP_TOKEN", "MDP_COMMAND")
_MACHINE_VARIABLES = (KIND_VARIABLE, CACHE_VARIABLE, SOURCES_VARIABLE)


def known_variables() -> frozenset[str]:
    """Give every name that is read somewhere, those of installed exchanges among them."""
    exchanges = {exchange for exchange, _ in installed_adapters()}
    return frozenset(
        [
            *_COMPOSE_VARIABLES,
            *_CLIENT_VARIABLES,
            *_MACHINE_VARIABLES,
            *_names(Settings.model_fields, "MDP_"),
            *_names(UpgradeSettings.model_fields, "MDP_"),
            *(
                name
                for exchange in exchanges
                for name in _names(ExchangeSettings.model_fields, f"MDP_{exchange.upper()}_")
            ),
        ]
    )


def unread_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Return the names with our prefix that are unknown, each with a similar one."""
    known = known_variables()
    unread = [name for name in sorted(environment) if name.startswith("MDP_") and name not in known]
    return {name: next(iter(get_close_matches(name, known, 1)), None) for name in unread}


def _names(fields: dict[str, FieldInfo], prefix: str) -> list[str]:
    aliased: dict[str, Any] = {name: info.validation_alias for name, info in fields.items()}
    return [str(alias or f"{prefix}{name}".upper()) for name, alias in aliased.items()]
