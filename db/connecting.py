"""The connections of this project: their settings, and their demands on a server.

Services, commands, `mdp check` and upgrades connect by the same string, so that a check tries what
a service will do.
"""

import os
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

CONNECT_SECONDS = 5

# Held by each session, whatever the server, the database or the role have as their own.
_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "default_transaction_isolation": r"read\ committed",
    "mdp.session": "1",  # tells that settings came through
}

# What a URL may have otherwise. A session whose server has gone is noticed within seconds.
_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

READ_SERVER_STATE: LiteralString = """
SELECT pg_backend_pid(), current_setting('server_encoding'),
       current_setting('mdp.session', true) IS NOT NULL,
       current_setting('transaction_read_only') = 'on'
"""
"""To which server process and database does the connection lead? Columns of `ServerState`."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server's process and the database, as a new connection finds them."""

    process: int
    encoding: str
    has_our_settings: bool
    is_read_only: bool

    def problem(self, *, must_write: bool = True) -> str | None:
        """Return why services can't work with it, and what to do; None if they can."""
        if self.encoding != "UTF8":
            return (
                f"the database's encoding {self.encoding} can't hold every symbol: make one with "
                "ENCODING 'UTF8' TEMPLATE template0"
            )
        if not self.has_our_settings:
            return f"a pooler drops the settings of connections: {NAME_THE_SERVER}"
        if must_write and self.is_read_only:
            return "the database only reads: name the primary, or end default_transaction_read_only"
        return None


NAME_THE_SERVER = "name the server itself in the URL, not the pooler"


def session_conninfo(url: str, *, name: str, statement_timeout_seconds: float = 0) -> str:
    """Return the connection string of a URL, with the settings that every session has.

    What the URL says of options, hosts and time-outs holds; `options` are added to.

    Args:
        url: A `postgresql://` URL, of several hosts too.
        name: The process, as `pg_stat_activity` shows it.
        statement_timeout_seconds: How long one statement may take; 0 is no limit.

    Raises:
        ValueError: It is no URL of a database; the message does not repeat it.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        message = "is no URL of a database: postgresql://USER:PASSWORD@HOST:PORT/NAME, with %XX "
        message += "for what is no letter or digit in a password"
        raise ValueError(message) from None
    own = {**_SETTINGS, "statement_timeout": round(statement_timeout_seconds * 1000)}
    theirs = str(given.get("options") or os.environ.get("PGOPTIONS", ""))
    options = " ".join([theirs, *(f"-c {setting}={value}" for setting, value in own.items())])
    ours = {"options": options.strip(), "application_name": name, "client_encoding": "utf8"}
    return make_conninfo("", **{**_DEFAULTS, **given, **ours})


def in_a_line(error: BaseException) -> str:
    """Return what an error of the server or the network says, without line breaks."""
    lines = (line.strip() for line in str(error).splitlines())
    text = " ".join(dict.fromkeys(filter(None, lines)))
    return f"{text}: {NAME_THE_SERVER}" if "unsupported startup parameter" in text else text
