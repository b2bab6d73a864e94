"""Bodies of `/health`; times in epoch ms."""

from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from db.upgrade import newest_revision
from mdp_core.domain.clock import to_ms
from mdp_core.exchanges.contact import Contact
from mdp_core.service.health import ExpiringSeries, ServiceDetails, ServiceState
from mdp_core.storage.jobs.job_runs import Run

Replica: TypeAlias = Literal["used", "away", "foreign"] | None


class DatabaseBody(TypedDict):
    """The database; `problem` says why the service can't serve from it.

    `replica` is null if none is configured; `away` and `foreign` (of another database, or promoted)
    cost no answer: the primary is read.
    """

    reachable: bool
    replica: Replica
    problem: NotRequired[str]
    kind: NotRequired[Literal["timescaledb", "postgres"]]
    postgres: NotRequired[str]
    timescaledb: NotRequired[str | None]
    migration: NotRequired[str | None]
    expected_migration: NotRequired[str]


class BlockBody(TypedDict):
    """Until when (epoch ms) an exchange lets an egress wait, and why."""

    egress: str
    until: int
    why: str


class ExpiringBody(TypedDict):
    """A series of `MDP_KEEP` that lacks a candle, which is lost at `lost_at`."""

    market_type: str
    symbol: str
    interval: str
    first_missing: int
    lost_at: int


class ExchangeHealthBody(TypedDict):
    """An exchange as this process last met it, and series that it will forget.

    `reachable` is null while nothing was asked of it, `clock_offset_ms` (ahead of the database's
    clock) while that was never read.
    """

    reachable: bool | None
    last_error: str | None
    clock_offset_ms: int | None
    blocked: list[BlockBody]
    expiring: list[ExpiringBody]


class SyncerBody(TypedDict):
    """A syncer, and when it was last heard of."""

    name: str
    alive: bool
    heartbeat_at: int


class RunBody(TypedDict):
    """A run of a job."""

    job: str
    due_at: int
    worker: str
    started_at: int
    ended_at: int | None
    rows: int | None
    waiting: int | None
    error: str | None


class CountersBody(TypedDict):
    """Counts of this process since it began, of the store, and of what waits now.

    `hits`, `misses` are answers with candles, `pages` those fetched, `waiting` requests that wait
    for an exchange: all of this process. `series_waiting` are hot series without budget; `verified`
    and `differing` candles that the nightly checks of a week compared.
    """

    hits: int
    misses: int
    pages: int
    waiting: int
    series_waiting: int
    rejected_rows: int
    unconfirmed_slots: int
    verified: int
    differing: int


class DetailsBody(TypedDict, total=False):
    """The members that only a token of scope `admin` sees."""

    exchanges: dict[str, ExchangeHealthBody]
    syncers: list[SyncerBody]
    runs: list[RunBody]
    counters: CountersBody


class HealthBody(DetailsBody):
    """The service's state; for a token of scope `admin` with details."""

    status: Literal["ok", "unavailable"]
    database: DatabaseBody


class LiveBody(TypedDict):
    """The process answers."""

    status: Literal["ok"]


def describe_state(state: ServiceState, replica: Replica, *, to_admin: bool) -> HealthBody:
    """Show the state that a load balancer asks for."""
    problem = state.cause if to_admin else state.problem
    described: DatabaseBody = {"reachable": state.health is not None, "replica": replica}
    if health := state.health:
        described["kind"] = "timescaledb" if health.timescaledb else "postgres"
        described["postgres"] = health.postgres
        described["timescaledb"] = health.timescaledb
        described["migration"] = health.migration
        described["expected_migration"] = newest_revision()
    if problem:
        described["problem"] = problem
    return {"status": "unavailable" if problem else "ok", "database": described}


def describe_details(details: ServiceDetails) -> DetailsBody:
    """Show the members that only an administrator sees."""
    return {
        "exchanges": {
            name: _exchange(name, contact, details) for name, contact in details.contacts.items()
        },
        "syncers": [
            {
                "name": _without_machine(syncer.name),
                "alive": syncer.is_alive,
                "heartbeat_at": to_ms(syncer.heartbeat_at),
            }
            for syncer in details.syncers
        ],
        "runs": [_run(run) for run in details.runs],
        "counters": _counters(details),
    }


def _exchange(name: str, contact: Contact, details: ServiceDetails) -> ExchangeHealthBody:
    stored = details.stored
    return {
        "reachable": contact.reachable,
        "last_error": contact.last_error,
        "clock_offset_ms": stored.clock_offsets_ms.get(name) if stored else None,
        "blocked": [
            {"egress": block.egress, "until": to_ms(block.until), "why": block.why}
            for block in (stored.blocks if stored else ())
            if block.exchange == name
        ],
        "expiring": [_expiring(it) for it in details.expiring if it.series.exchange == name],
    }


def _expiring(expiring: ExpiringSeries) -> ExpiringBody:
    series = expiring.series
    return {
        "market_type": series.market_type,
        "symbol": series.symbol,
        "interval": series.interval,
        "first_missing": to_ms(series.first_missing),
        "lost_at": to_ms(expiring.lost_at),
    }


def _counters(details: ServiceDetails) -> CountersBody:
    stored = details.stored
    waiting = {run.job: run.waiting for run in reversed(details.runs) if run.waiting is not None}
    verified, differing = details.verified
    return {
        "hits": details.answers.hits,
        "misses": details.answers.misses,
        "pages": details.pages,
        "waiting": details.waiting,
        "series_waiting": sum(waiting.values()),
        "rejected_rows": stored.rejected_rows if stored else 0,
        "unconfirmed_slots": stored.unconfirmed_slots if stored else 0,
        "verified": verified,
        "differing": differing,
    }


def _without_machine(syncer: str) -> str:
    """Return a syncer's name without that of its machine."""
    return syncer.partition(":")[2]


def _run(run: Run) -> RunBody:
    return {
        "job": run.job,
        "due_at": to_ms(run.due_at),
        "worker": _without_machine(run.worker),
        "started_at": to_ms(run.started_at),
        "ended_at": None if run.ended_at is None else to_ms(run.ended_at),
        "rows": run.rows,
        "waiting": run.waiting,
        "error": run.error,
    }
