"""The whole of both clients against a service that runs."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from mdp_client import (
    Forbidden,
    HistoryUnavailable,
    InvalidParameter,
    InvalidWindow,
    JobCancelled,
    JobStarted,
    LimitTooLarge,
    NotConfigured,
    NotFound,
    Unauthorized,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
    errors,
)
from mdp_client.core import problems
from mdp_client.testing import Service

from client_tests.both import Both
from client_tests.conftest import Connect

ETH = ("binance", "perp", "ETH-USDT", "1h")
API_PAGE = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param("2024", "2024-02", id="a year and a month"),
        pytest.param("2024-01-01", "2024-02-01", id="dates as text"),
        pytest.param("2024-01-01T02:00+02:00", "2024-01-31T23:30Z", id="zones, rounded up"),
        pytest.param(date(2024, 1, 1), date(2024, 2, 1), id="dates"),
        pytest.param(datetime(2024, 1, 1), datetime(2024, 2, 1), id="naive"),  # noqa: DTZ001 - means UTC
        pytest.param(datetime(2024, 1, 1, tzinfo=UTC), pd.Timestamp("2024-02-01"), id="aware"),
        pytest.param(pd.Timestamp("2023-12-31 19:00", tz="US/Eastern"), 1_706_745_600_000, id="ms"),
        pytest.param("1704067200000", "1706745600000", id="ms as text"),
    ],
)
def test_every_way_to_write_a_time_is_the_same_window(
    client: Both, start: object, end: object
) -> None:
    """January has 744 hours, however it is written."""
    got = client.candles(*ETH, start=start, end=end)

    assert (len(got), got.start) == (744, datetime(2024, 1, 1, tzinfo=UTC))
    assert got.end == datetime(2024, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("start", ["yesterday", "2024-13", 1.5, True])
def test_what_is_no_time_is_told(client: Both, start: object) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidParameter, match="start="):
        client.candles(*ETH, start=start)


def test_newest_candles_and_limits(client: Both) -> None:
    """Without a start the newest ones, 500 of them; a limit bounds both ways to ask."""
    newest = client.candles(*ETH)
    first = client.candles(*ETH, start="2024", limit=5)

    assert (len(newest), len(first)) == (500, 5)
    assert first.end == datetime(2024, 1, 1, 5, tzinfo=UTC)
    assert newest.end - newest.start == timedelta(hours=500)
    assert client.candles(*ETH, limit=3).to_ccxt() == newest.to_ccxt()[-3:]
    assert client.candles(*ETH, limit=1, settled=True).settled_until <= newest.end


@pytest.mark.parametrize(
    ("series", "options", "expected"),
    [
        (("kraken", "perp", "BTC-USDT", "1h"), {}, UnknownExchange),
        (("binance", "spot", "BTC-USDT", "1h"), {}, UnknownMarketType),
        (("binance", "perp", "BTC-USD", "1h"), {}, UnknownSymbol),
        (("binance", "perp", "BTC-USDT", "7h"), {}, UnsupportedInterval),
        (ETH, {"start": "2024-02", "end": "2024"}, InvalidWindow),
        (ETH, {"limit": 2_000_000}, LimitTooLarge),
        (ETH, {"start": 1_704_067_200}, InvalidParameter),
        (ETH, {"fields": "nothing"}, InvalidParameter),
        (
            ("hyperliquid", "perp", "BTC", "1m"),
            {"start": "2024", "end": "2024-01-02"},
            HistoryUnavailable,
        ),
    ],
)
def test_each_refusal_has_its_class(
    client: Both, series: tuple[str, ...], options: dict[str, object], expected: type[Exception]
) -> None:
    """The class is that of the code, and the text has the service's detail."""
    with pytest.raises(expected) as refused:
        client.candles(*series, **options)

    error = refused.value
    assert isinstance(error, errors.MdpError)
    assert type(error) is problems.OF_CODE[error.code]
    assert error.detail
    assert error.detail in str(error)
    assert error.request_id
    assert error.status in (404, 422)


def test_errors_carry_what_helps(client: Both) -> None:
    """Names that are near, intervals that there are, the earliest time."""
    with pytest.raises(UnknownSymbol) as symbol:
        client.candles("binance", "perp", "BTC-USD", "1h")
    with pytest.raises(UnsupportedInterval) as interval:
        client.candles("binance", "perp", "BTC-USDT", "7h")
    with pytest.raises(UnknownExchange) as exchange:
        client.candles("kraken", "perp", "BTC-USDT", "1h")
    with pytest.raises(HistoryUnavailable) as history:
        client.candles("hyperliquid", "perp", "BTC", "1m", start="2024", end="2024-01-02")

    assert "BTC-USDT" in symbol.value.near
    assert "1h" in interval.value.supported
    assert "binance" in exchange.value.known
    earliest = history.value.earliest
    assert earliest is not None
    assert datetime.now(UTC) - timedelta(days=4) < earliest < datetime.now(UTC)


def test_partial_answer_says_what_is_missing(client: Both) -> None:
    """It has what there is, and the reasons."""
    series = ("hyperliquid", "perp", "BTC", "1m")
    got = client.candles(*series, start="2024-05-01", end="2024-05-02", partial=True)

    assert (len(got), got.complete) == (0, False)
    (missing,) = got.missing
    assert missing.reason == "history_unavailable"
    assert missing.end == datetime(2024, 5, 2, tzinfo=UTC)


def test_classes_are_those_of_the_services_table() -> None:
    """Each code of the API's page has a class of its name."""
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API_PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 20
    for status, code in rows:
        kind = problems.OF_CODE[code]
        assert kind.__name__ == "".join(part.capitalize() for part in code.split("_"))
        of_status = problems.OF_STATUS[int(status)]
        assert issubclass(kind, of_status)


def test_token_that_proves_nothing(connect: Connect, mdp: Service) -> None:
    """It is told at once, as is a client without one."""
    for token in ("nonsense", None):
        with pytest.raises(Unauthorized):
            connect(mdp.url, token=token).candles(*ETH, limit=1)
    assert issubclass(Forbidden, errors.MdpError)


def test_variables_of_the_environment_are_read(
    connect: Connect, mdp: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MDP_URL` and `MDP_TOKEN` stand for arguments that are left out."""
    monkeypatch.setenv("MDP_URL", f"{mdp.url}/")
    monkeypatch.setenv("MDP_TOKEN", mdp.token)
    assert connect("").exchanges()

    monkeypatch.delenv("MDP_URL")
    with pytest.raises(NotConfigured, match="MDP_URL"):
        connect("")
    with pytest.raises(NotConfigured, match="no URL"):
        connect("localhost:8000")


def test_metadata(client: Both) -> None:
    """Records have the JSON's names; filters are passed on; all pages are read."""
    exchanges = {exchange.exchange: exchange for exchange in client.exchanges()}
    eth = client.symbols(exchange="binance", base="ETH", quote="USDT", active=True)
    hours = [it for it in client.intervals(exchange="coinbase") if it.interval == "1h"]

    assert exchanges["binance"].market_types == ("perp",)
    assert [(symbol.symbol, symbol.native_symbol, symbol.ccxt_symbol) for symbol in eth] == [
        ("ETH-USDT", "ETHUSDT", "ETH/USDT:USDT")
    ]
    assert (hours[0].native, hours[0].grid["step_ms"]) == ("3600", 3_600_000)
    assert len(client.symbols(exchange="binance")) >= 300


@pytest.mark.parametrize("method", ["candles", "stream", "coverage"])
def test_unknown_option_is_a_type_error(client: Both, method: str) -> None:
    """A misspelt option is not passed over."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'begin'"):
        getattr(client, method)(*ETH, begin="2024")


def test_newest_candle_and_the_forming_one(client: Both) -> None:
    """Times are aware; the forming candle opens after the newest closed one."""
    series = ("binance", "perp", "BTC-USDC", "1d")
    closed, forming = client.latest(*series), client.latest(*series, forming=True)

    assert (closed.closed, forming.closed, forming.settled) == (True, False, False)
    assert forming.candle.time > closed.candle.time
    assert closed.as_of.tzinfo is UTC
    assert closed.candle.low <= closed.candle.close <= closed.candle.high


def test_coverage(client: Both) -> None:
    """Windows with their states, and by slots with `detail`."""
    series = ("coinbase", "spot", "ETH-USD", "1h")
    client.candles(*series, start="2024-05-01", end="2024-05-02")
    window = {"start": "2024-05-01", "end": "2024-05-02"}
    found = client.coverage(*series, **window)
    in_detail = client.coverage(*series, **window, detail=True)

    assert [result.state for result in found] == ["covered"]
    assert found.windows[0].end == datetime(2024, 5, 2, tzinfo=UTC)
    assert {entry.state for entry in in_detail} <= {"candles", "no_candles"}
    assert len(client.coverage(*series)) >= 2


def test_cold_window_is_followed_to_its_end(
    client: Both, capfd: pytest.CaptureFixture[str]
) -> None:
    """The job is waited for, and nothing is shown on a pipe."""
    symbol = {"sync": "DOGE-USDT", "async": "LTC-USDT"}[client.kind]
    got = client.candles("binance", "perp", symbol, "1m", start="2024-03", end="2024-04-15")

    assert (len(got), got.complete) == (45 * 1440, True)
    assert capfd.readouterr() == ("", "")


def test_cold_window_that_is_not_waited_for(client: Both) -> None:
    """The error has the job, which can be looked at, found again, and cancelled."""
    symbol = {"sync": "ADA-USDT", "async": "DOT-USDT"}[client.kind]
    with pytest.raises(JobStarted) as started:
        client.candles("binance", "perp", symbol, "1m", start="2022", end="2024", wait=False)

    job = started.value.job
    assert str(job.id) in str(started.value)
    status = client.resolved(job.status())
    assert (status.symbol, status.job) == (symbol, job.id)
    found = client.job(job.id)
    assert job.id in [entry.id for entry in client.jobs("open")]
    assert client.resolved(found.cancel()).state == "cancelled"
    with pytest.raises(JobCancelled, match=f"job {job.id}"):
        client.resolved(job.wait())
    with pytest.raises(NotFound):
        client.job(10**9)


def test_backfill_of_several_series(client: Both) -> None:
    """Jobs are a sequence with the same methods over all of them."""
    start = {"sync": "2023-01", "async": "2023-03"}[client.kind]
    names = (["BTC-USDT", "SOL-USDT"], ["1h", "4h"])
    jobs = client.backfill("binance", "perp", *names, start=start, end="2023-05")

    ended = client.resolved(jobs.wait())
    assert [job.state for job in ended] == ["done"] * 4
    assert {(job.symbol, job.interval) for job in ended} == {
        (symbol, interval) for symbol in names[0] for interval in names[1]
    }
    assert len(jobs[1:3]) == 2
    assert client.resolved(jobs.status()) == ended
    with pytest.raises(AttributeError, match="4 jobs"):
        jobs.id  # noqa: B018 - reading it fails
    one = client.backfill("binance", "perp", "BTC-USDT", "1h", start=start, end="2023-05")
    assert one.id == one[0].id
