"""The commands of docs/backup.md and docs/operations.md run inside compose.

Without an engine: what would run in a container runs here, on a server that lets in whom the
image's lets in (`compose_stand_in.py`).
"""

import re
from collections.abc import Generator

import psycopg
import pytest
from pydantic import SecretStr
from support.backups import (
    base_backup,
    commands_by_heading,
    content_of,
    documented_commands,
    running,
    store_number,
)
from support.compose_stand_in import ComposeStand, compose_stand
from support.places import PROJECT
from support.postgres import Server
from support.sandbox import running_sandbox
from support.waiting import wait_until

from api.auth import TokenVerifier
from mdp_core.settings import TokenSettings
from scripts.sandbox.app import SandboxOptions

# The image has the extension, and only with it there are such databases.
pytestmark = pytest.mark.parametrize("server", ["timescaledb"], indirect=True)

_PASSWORD = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of the tests
_STREAMING = "SELECT usename FROM pg_stat_replication WHERE state = 'streaming'"


@pytest.fixture(scope="module")
def stand(server: Server) -> Generator[ComposeStand]:
    """The services that compose would have started, with some candles."""
    with running_sandbox(SandboxOptions(limits=False)) as sandbox:
        exchanges = {
            f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}"
            for name in ("binance", "coinbase", "hyperliquid")
        }
        with compose_stand(server, exchanges) as opened:
            opened.run("docker compose run --rm migrate")
            yield opened


@pytest.fixture
def filled(stand: ComposeStand) -> dict[str, list[str]]:
    """Everything that the database holds, after the page's own backfill."""
    stand.run(_of_operations()[1])
    content = content_of(stand.owner_url)
    assert content["candles"]
    return content


def _of_operations() -> tuple[str, str]:
    """Give the block that makes a token, and the one that looks and loads."""
    token, load = commands_by_heading(PROJECT / "docs" / "operations.md")["Inside compose"]
    return token, load


def test_first_token_is_one_that_the_api_takes(stand: ComposeStand) -> None:
    """It is made with the key of `.env`, and has the scopes that were named."""
    token = stand.run(_of_operations()[0]).strip()
    settings = TokenSettings(jwt_secret=SecretStr(stand.env["JWT_SECRET"]))

    assert TokenVerifier(settings).verify(token).scopes == {"candles:read", "meta:read"}


def test_status_and_backfill_are_those_of_the_database(stand: ComposeStand) -> None:
    """The owner sees the roles; what is loaded is there."""
    printed = stand.run(_of_operations()[1])

    assert "mdp_service (may log in)" in printed
    assert re.search(r"schema +\d+, the newest", printed)
    assert len(content_of(stand.owner_url)["candles"]) >= 31  # and the rest of their pages


def test_dump_brings_everything_back(stand: ComposeStand, filled: dict[str, list[str]]) -> None:
    """Every row; and the role of the services may read and write them again."""
    dump, restore = documented_commands("One database, in compose")
    stand.run(dump)
    number = store_number(stand.owner_url)
    _lose_candles(stand)
    stand.run(restore)

    assert content_of(stand.owner_url) == filled
    assert store_number(stand.owner_url) != number
    assert _as_service(stand) == len(filled["candles"])


def test_backup_of_the_server_brings_everything_back(
    stand: ComposeStand, filled: dict[str, list[str]]
) -> None:
    """Every row, and the roles with their passwords."""
    backup, restore = documented_commands("The whole server, in compose")
    stand.run(backup)
    number = store_number(stand.owner_url)
    _lose_candles(stand)
    stand.run(restore)

    assert content_of(stand.owner_url) == filled
    assert store_number(stand.owner_url) != number
    assert _as_service(stand) == len(filled["candles"])


def test_replica_is_let_in_and_follows(
    stand: ComposeStand, server: Server, filled: dict[str, list[str]]
) -> None:
    """Only after the line of the page; then it streams, and may read no table itself."""
    let_in, follow = documented_commands("A replica for reading")
    url = stand.url("mdp_replica", _PASSWORD)
    primary = Server("timescaledb", url, server.bin_dir)
    owner = Server("timescaledb", stand.owner_url, server.bin_dir)
    with pytest.raises(AssertionError, match=r"no pg_hba.conf entry for replication"):
        base_backup(owner, follow).__enter__()
    stand.run(let_in, REPLICA_PASSWORD=_PASSWORD)
    with (
        base_backup(primary, follow) as cluster,
        running(cluster, primary) as replica,
        psycopg.connect(stand.owner_url, autocommit=True) as connection,
    ):
        wait_until(lambda: connection.execute(_STREAMING).fetchall() == [("mdp_replica",)])
        assert content_of(replica.url(stand.owner_url)) == filled
        with psycopg.connect(url) as itself, pytest.raises(psycopg.errors.InsufficientPrivilege):
            itself.execute("SELECT FROM candles")


def test_stand_in_refuses_what_no_page_should_use(stand: ComposeStand) -> None:
    """A misspelled service, option or volume is found."""
    for command in ("compose exec -T postgre true", "compose up --detatch", "volume rm mdp_data"):
        assert stand.attempt(f"docker {command}").returncode == 64


def _lose_candles(stand: ComposeStand) -> None:
    with psycopg.connect(stand.owner_url) as connection:
        connection.execute("DELETE FROM candles")


def _as_service(stand: ComposeStand) -> int:
    """Count the candles as the services would, after writing one row."""
    url = stand.url("mdp_service", stand.env["MDP_SERVICE_PASSWORD"])
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE series SET epoch = epoch")
        row = connection.execute("SELECT count(*) FROM candles").fetchone()
    assert row
    return row[0]
