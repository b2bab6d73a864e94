"""Tokens that are revoked, and the tokens of requests in the log."""

import asyncio
import logging
from datetime import timedelta

import httpx
import jwt
import pytest
from fastapi import FastAPI
from support.http import connected
from typer.testing import CliRunner

from api.tokens import issue_token
from mdp_core.settings import Settings
from scripts.cli import main as cli

_PATH = "/meta/exchanges"


async def test_revoked_token_is_refused_by_a_process_that_runs(
    app: FastAPI, settings: Settings, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was used before, too; other tokens of its subject stay good."""
    token = _token(settings)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    async with connected(app, token) as revoked:
        assert (await revoked.get(_PATH)).status_code == 200
        done = await asyncio.to_thread(_run, "token", "revoke", _claims(token)["jti"])
        again = await asyncio.to_thread(_run, "token", "revoke", _claims(token)["jti"])
        while (answer := await revoked.get(_PATH)).status_code == 200:  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0.05)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "revoked" in answer.json()["detail"]
    assert (await client.get(_PATH)).status_code == 200
    assert ("is revoked" in done, "was revoked before" in again) == (True, True)


async def test_log_names_subject_and_id_of_the_token(
    app: FastAPI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the token lacks a scope; never the token."""
    token = _token(settings)
    with caplog.at_level(logging.DEBUG):
        async with connected(app, token) as client:
            for path in (_PATH, "/backfills"):
                await client.get(path)
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    named = [(vars(line)["status"], vars(line)["sub"], vars(line)["jti"]) for line in lines]

    assert named == [(200, "tester", _claims(token)["jti"]), (403, "tester", _claims(token)["jti"])]
    assert not [line for line in caplog.records if token in str(vars(line))]


def _token(settings: Settings) -> str:
    return issue_token(settings, "tester", frozenset({"meta:read"}), timedelta(hours=1))


def _claims(token: str) -> dict[str, str]:
    return jwt.decode(token, options={"verify_signature": False})


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    return done.output
