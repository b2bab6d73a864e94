"""Jobs and the subjects that ask for them: quotas, turns, and whose a job is."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services

from api.tokens import issue_token
from mdp_core.domain.windows import Window
from mdp_core.settings import Settings
from mdp_core.storage.jobs.backfills import Job, Owner
from mdp_core.wiring import Services
from syncer.app import worker_of
from syncer.scheduled_jobs import scheduled_jobs

_PATH = "/candles/binance/perp/ETH-USDT/1m"
_DAY = timedelta(days=1)
_START = datetime(2024, 1, 1, tzinfo=UTC)

Caller = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    """Services that make a job of more than a page; a syncer counts as alive."""
    few = settings.model_copy(update={"max_pages": 1, "subject_jobs": 2})
    async with opened_services(few, sandbox) as opened:
        await opened.runs.live("idle")
        yield opened


@pytest.fixture
async def caller(services: Services) -> AsyncGenerator[Callable[..., httpx.AsyncClient]]:
    """Makes the client of a subject with some scopes."""
    app = app_of(services)
    async with AsyncExitStack() as stack:
        clients: dict[str, httpx.AsyncClient] = {}
        for name, scopes in _SUBJECTS.items():
            token = issue_token(services.settings, name, frozenset(scopes), _DAY)
            clients[name] = await stack.enter_async_context(connected(app, token))
        yield clients.__getitem__


_SUBJECTS = {
    "ann": ["candles:read"],
    "bob": ["candles:read"],
    "writer": ["candles:read", "backfill:write"],
    "boss": ["candles:read", "admin"],
}


async def _asked(client: httpx.AsyncClient, day: int) -> httpx.Response:
    """Ask for a window that takes three pages."""
    start = _START + day * _DAY
    bounds = {"start": start.isoformat(), "end": (start + _DAY).isoformat()}
    return await client.get(_PATH, params=bounds)


async def test_reader_has_a_quota_of_open_jobs(caller: Caller) -> None:
    """Beyond it 429 says when to come back; the same window again is the same job."""
    ann, bob, writer = caller("ann"), caller("bob"), caller("writer")
    opened = [await _asked(ann, day) for day in range(2)]
    refused, again = await _asked(ann, 2), await _asked(ann, 0)
    others = [await _asked(client, day) for client in (bob, writer) for day in (0, 2)]
    await ann.delete(opened[0].json()["status_url"])
    after = await _asked(ann, 2)

    assert [answer.status_code for answer in (*opened, again, *others, after)] == [202] * 8
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["Retry-After"]) > 0
    assert again.json()["job"] == opened[0].json()["job"]


async def test_writer_is_not_bound_by_the_quota_of_readers(caller: Caller) -> None:
    """Neither by GET nor by POST."""
    writer = caller("writer")
    by_get = [(await _asked(writer, day)).status_code for day in range(3)]
    body = {"exchange": "binance", "symbols": ["BTC-USDT"], "intervals": ["1m", "3m", "5m"]}
    by_post = await writer.post("/backfills", json={**body, "start": "2024-01-01"})

    assert by_get == [202] * 3
    assert (by_post.status_code, len(by_post.json()["jobs"])) == (202, 3)


async def test_reader_sees_and_cancels_its_own_jobs(caller: Caller) -> None:
    """Those of another subject are not there for it, and stay."""
    ann, bob = caller("ann"), caller("bob")
    url = (await _asked(ann, 0)).json()["status_url"]
    foreign = [await bob.get(url), await bob.delete(url)]
    lists = [(await client.get("/backfills")).json()["backfills"] for client in (ann, bob)]
    cancelled = await ann.delete(url)

    assert {(answer.status_code, answer.json()["code"]) for answer in foreign} == {
        (404, "not_found")
    }
    assert [len(jobs) for jobs in lists] == [1, 0]
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (await ann.get(url)).json()["state"] == "cancelled"


async def test_shared_job_is_cancelled_by_the_last_that_wants_it(caller: Caller) -> None:
    """One job of both; one subject's cancelling takes only its own share away."""
    ann, bob = caller("ann"), caller("bob")
    urls = {(await _asked(client, 0)).json()["status_url"] for client in (ann, bob)}
    (url,) = urls
    first, still = await ann.delete(url), await bob.get(url)
    last = await bob.delete(url)

    assert first.json()["state"] == still.json()["state"] == "queued"
    assert (await ann.get(url)).status_code == 404
    assert last.json()["state"] == "cancelled"


async def test_administrator_cancels_any_job_and_a_writer_its_own(caller: Caller) -> None:
    """A writer sees the jobs of others and may not end them."""
    url = (await _asked(caller("ann"), 0)).json()["status_url"]
    seen, refused = await caller("writer").get(url), await caller("writer").delete(url)
    ended = await caller("boss").delete(url)

    assert (seen.status_code, refused.status_code) == (200, 403)
    assert (ended.status_code, ended.json()["state"]) == (200, "cancelled")


async def test_subjects_take_turns_and_have_their_small_jobs_first(services: Services) -> None:
    """However many another one has queued before."""
    jobs = await _queued(services, ("greedy", 30), ("greedy", 3), ("greedy", 9), ("late", 365))
    taken: list[Job] = []
    for _ in range(4):
        job = await services.jobs.next("binance", "perp")
        assert job
        await services.jobs.start(job.id)
        taken.append(job)
        if len(taken) != 1:  # the first one goes on
            await services.jobs.leave(job.id, job.subjects[0])

    assert [job.id for job in taken] == [jobs[1], jobs[3], jobs[1], jobs[2]]


async def test_long_job_gives_way_to_other_subjects(services: Services) -> None:
    """A worker leaves it at the end of its turn, and comes back to it."""
    jobs = await _queued(services, ("greedy", 365), ("late", 1))
    (adapter,) = services.resolver.directory.markets("binance", None)
    worker = worker_of(services, adapter, turn_seconds=0.0)
    while (small := await services.jobs.get(jobs[1])) and small.state.is_open:
        await worker.work_once()
    long = await services.jobs.get(jobs[0])

    assert small
    assert small.state == "done"
    assert long
    assert long.state == "running"


async def _queued(services: Services, *wanted: tuple[str, int]) -> list[int]:
    """Open a job of so many days for each subject; return their ids."""
    series = await services.resolver.series("binance", "perp", "ETH-USDT", "1m")
    return [
        await services.jobs.get_or_create(
            series.id,
            Window(_START + first * _DAY, _START + first * _DAY + days * _DAY),
            timedelta(0),
            Owner(subject, 100),
        )
        for first, (subject, days) in zip((0, 400, 500, 600), wanted, strict=False)
    ]


async def test_ended_jobs_and_rejected_rows_have_a_retention(
    services: Services, database: psycopg.Connection
) -> None:
    """Open jobs stay for as long as they are open."""
    jobs = await _queued(services, ("ann", 1), ("bob", 1), ("cid", 1))
    series = await services.resolver.series("binance", "perp", "ETH-USDT", "1m")
    for job in jobs[:2]:
        await services.jobs.leave(job, ("ann", "bob")[job == jobs[1]])
    database.execute(
        "UPDATE backfills SET created_at = now() - interval '40 days',"
        " ended_at = ended_at - interval '40 days' WHERE id <> %s",
        [jobs[1]],
    )
    database.execute(
        "INSERT INTO rejected_rows (series_id, slot, row, reason, last_seen) VALUES "
        "(%(id)s, '2024-05-01', '', '', now() - interval '100 days'), "
        "(%(id)s, '2024-05-02', '', '', now())",
        {"id": series.id},
    )
    (forgetting,) = [job for job in scheduled_jobs(services) if job.name == "forget"]
    await forgetting.run()

    assert database.execute("SELECT id FROM backfills ORDER BY id").fetchall() == [
        (job,) for job in jobs[1:]
    ]
    assert database.execute("SELECT count(*) FROM rejected_rows").fetchone() == (1,)
