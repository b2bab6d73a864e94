"""A server that cuts, hangs, refuses and lies: whole answer or right exception."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdp_client import (
    BadBody,
    BrokenBody,
    Client,
    ConnectionFailed,
    HttpError,
    MdpError,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    ServiceUnavailable,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
)

from client_tests.conftest import Connect
from client_tests.scripted import Asked, Reply, ScriptedServer
from client_tests.store import ARROW, MINUTE, START, StoreServer, encode

SERIES = ("binance", "perp", "BTC-USDT", "1m")
END = START + 5000 * MINUTE
WINDOW = {"start": START, "end": END}
# One server serves all examples.
_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
JSON = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": "application/problem+json"}
HTML = {"Content-Type": "text/html"}


def problem(status: int, code: str, **headers: str) -> Reply:
    """Make an answer with the service's own problem body."""
    body = {"code": code, "detail": f"because of {code}", "request_id": "r1"}
    return Reply(status, {**PROBLEM, **headers}, json.dumps(body).encode())


@settings(max_examples=12, deadline=None, suppress_health_check=_FIXTURES)
@given(share=st.floats(0, 1), has_length=st.booleans())
def test_body_cut_anywhere_is_asked_for_again_after_its_last_batch(
    store: StoreServer, connect: Connect, share: float, *, has_length: bool
) -> None:
    """Wherever a body is cut, the answer is whole, and no batch is fetched twice."""
    cuts = list[int]()

    def cut_once(asked: Asked, reply: Reply) -> Reply:
        if cuts:
            return reply
        cuts.append(int(share * (len(reply.body) - 1)))
        return Reply(reply.status, reply.headers, reply.body, cuts[0], has_length=has_length)

    store.asked.clear()
    store.tamper = cut_once
    got = connect(store.url).candles(*SERIES, **WINDOW)

    assert got.to_ccxt() == [list(row) for row in store.expected(START, END)]
    (_, again) = store.windows()
    assert again[1] == END
    assert (again[0] - START) % (1000 * MINUTE) in (0, 999 * MINUTE + 1)


def test_stream_goes_on_after_a_cut_without_a_candle_twice(
    store: StoreServer, connect: Connect
) -> None:
    """Batches that were yielded are not yielded again."""
    cuts = iter([130_000, 60_000, 60_000])

    def cut(asked: Asked, reply: Reply) -> Reply:
        return Reply(reply.status, reply.headers, reply.body, next(cuts, None))

    store.tamper = cut
    batches = connect(store.url).stream(*SERIES, **WINDOW)

    assert [time.timestamp() * 1000 for batch in batches for time in batch["time"].to_pylist()] == [
        row[0] for row in store.expected(START, END)
    ]
    assert len(store.asked) == 4


@pytest.mark.parametrize("at_end", [True, False])
def test_stream_without_its_marker_is_never_a_short_table(
    scripted: ScriptedServer, store: StoreServer, connect: Connect, *, at_end: bool
) -> None:
    """A body of whole batches, and of the length that it says, still lacks its end."""
    body = encode(store.expected(START, END))
    body = body[:-8] if at_end else body[: body.index(b"\xff\xff\xff\xff", 1000)]
    scripted.script(Reply(200, store.headers(START, END), body))

    with pytest.raises(BadBody):
        connect(scripted.url, patience=0.5).candles(*SERIES, **WINDOW)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\x7f", id="a length without end"),
        pytest.param(b"{}" * 50, id="JSON"),
        pytest.param(encode([])[:-8] + b"\xff\xff\xff\xff\x10\0\0\0" + b"\7" * 16, id="garbage"),
        pytest.param(encode([]) + b"more", id="more than a stream"),
    ],
)
def test_undecodable_body_is_an_error(
    scripted: ScriptedServer, store: StoreServer, connect: Connect, body: bytes
) -> None:
    """It is no empty table."""
    scripted.script(Reply(200, store.headers(START, END), body))

    with pytest.raises(BrokenBody):
        connect(scripted.url, patience=0.3).candles(*SERIES, **WINDOW)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(START + 5 * MINUTE, 1, 1, 1, 1, 1), (START, 1, 1, 1, 1, 1)], id="order"),
        pytest.param([(START - MINUTE, 1, 1, 1, 1, 1)], id="before the window"),
        pytest.param([(END, 1, 1, 1, 1, 1)], id="after the window"),
    ],
)
def test_candles_outside_the_window_are_an_error(
    scripted: ScriptedServer, store: StoreServer, connect: Connect, rows: list[tuple[float, ...]]
) -> None:
    """An answer speaks of the question."""
    scripted.script(Reply(200, store.headers(START, END), encode(rows)))

    with pytest.raises(BrokenBody):
        connect(scripted.url, patience=0.3).candles(*SERIES, **WINDOW)


@pytest.mark.parametrize(
    ("start", "end"), [(START + MINUTE, END), (START, END + MINUTE), (START - MINUTE, END)]
)
def test_answer_to_another_window_is_an_error(
    scripted: ScriptedServer, store: StoreServer, connect: Connect, start: int, end: int
) -> None:
    """The window that the headers name is compared with the one that was asked for."""
    scripted.script(Reply(200, store.headers(start, end), encode([])))

    with pytest.raises(BadBody, match="asked for"):
        connect(scripted.url).candles(*SERIES, **WINDOW)
    assert len(scripted.asked) == 1


def test_incomplete_answer_that_nobody_asked_for_is_an_error(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """Only `partial=True` accepts one."""
    headers = store.headers(START, END) | {"X-Complete": "false"}
    said = json.dumps([{"start": START, "end": END, "reason": "rate_limited"}])
    scripted.script(Reply(200, headers, encode([], {"missing": said})))
    client = connect(scripted.url)

    with pytest.raises(BadBody, match="incomplete"):
        client.candles(*SERIES, **WINDOW)
    got = client.candles(*SERIES, **WINDOW, partial=True)
    assert (got.complete, [gap.reason for gap in got.missing]) == (False, ["rate_limited"])


def test_columns_that_change_between_two_parts_are_an_error(
    store: StoreServer, connect: Connect
) -> None:
    """A table has the same columns from its first row to its last."""

    def other_columns(asked: Asked, reply: Reply) -> Reply:
        if len(store.asked) == 1:
            return Reply(reply.status, reply.headers, reply.body, 100_000)
        return Reply(reply.status, reply.headers, reply.body.replace(b"volume", b"amount"))

    store.tamper = other_columns
    with pytest.raises(BadBody, match="columns changed"):
        connect(store.url).candles(*SERIES, **WINDOW)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(problem(503, "overloaded"), Overloaded, id="503"),
        pytest.param(problem(503, "a_new_code"), ServiceUnavailable, id="503 of a new code"),
        pytest.param(
            problem(503, "rate_limited", **{"Retry-After": "0"}), RateLimited, id="at once"
        ),
        pytest.param(problem(429, "quota_exceeded"), QuotaExceeded, id="429"),
        pytest.param(Reply(429, HTML, b"<html>"), TooManyRequests, id="429 of a gateway"),
        pytest.param(Reply(503, HTML, b"<html>"), ServiceUnavailable, id="503 HTML"),
        pytest.param(Reply(503, PROBLEM, b'{"code": "over', 5), ServiceUnavailable, id="503 cut"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_told(
    scripted: ScriptedServer,
    store: StoreServer,
    connect: Connect,
    reply: Reply,
    expected: type[MdpError],
) -> None:
    """After a refusal the answer is whole; where all tries fail, the refusal is told."""
    rows = store.expected(START, END)
    whole = Reply(200, store.headers(START, END), encode(rows))
    scripted.script(reply, reply, whole)
    got = connect(scripted.url, patience=60).candles(*SERIES, **WINDOW)
    tries = len(scripted.asked)
    scripted.script(reply)
    with pytest.raises(expected) as refused:
        connect(scripted.url, patience=0.3).candles(*SERIES, **WINDOW)

    assert (len(got), tries) == (len(rows), 3)
    assert type(refused.value) is expected
    assert len(scripted.asked) > tries + 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(problem(401, "unauthorized"), Unauthorized, id="401"),
        pytest.param(Reply(401, HTML, b"<html>"), Unauthorized, id="401 HTML"),
        pytest.param(Reply(418, HTML, b""), HttpError, id="an unknown status"),
        pytest.param(Reply(302, {"Location": "http://elsewhere/"}), HttpError, id="redirect"),
        pytest.param(Reply(502, HTML, b"<html>"), UpstreamError, id="gateway"),
        pytest.param(Reply(200, HTML, b"<html>"), BadBody, id="a page"),
        pytest.param(Reply(200, JSON, b"{}"), BadBody, id="JSON"),
        pytest.param(Reply(200, {"Content-Type": ARROW}, encode([])), BadBody, id="no window"),
    ],
)
def test_what_will_not_pass_is_told_at_once(
    scripted: ScriptedServer, connect: Connect, reply: Reply, expected: type[MdpError]
) -> None:
    """No second request is made for it."""
    scripted.script(reply)

    with pytest.raises(expected) as refused:
        connect(scripted.url).candles(*SERIES, **WINDOW)
    assert type(refused.value) is expected
    assert len(scripted.asked) == 1


def test_retry_after_is_obeyed(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """The service is not asked again before."""
    whole = Reply(200, store.headers(START, END), encode([]))
    times = list[float]()

    def answer(asked: Asked) -> Reply:
        times.append(time.monotonic())
        return whole if len(times) > 1 else problem(503, "overloaded", **{"Retry-After": "1"})

    scripted.answer = answer
    connect(scripted.url).candles(*SERIES, **WINDOW)

    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(("seconds", "patience"), [("301", 1000), ("20", 10)])
def test_retry_after_beyond_patience_is_told_and_not_slept(
    scripted: ScriptedServer, connect: Connect, seconds: str, patience: float
) -> None:
    """The caller learns when to come back."""
    scripted.script(problem(503, "rate_limited", **{"Retry-After": seconds}))

    with pytest.raises(RateLimited) as refused:
        connect(scripted.url, patience=patience).candles(*SERIES, **WINDOW)
    assert refused.value.retry_after == float(seconds)
    assert len(scripted.asked) == 1


def test_token_that_is_revoked_amid_an_answer_is_told(store: StoreServer, connect: Connect) -> None:
    """The broken half is not handed out."""

    def revoke(asked: Asked, reply: Reply) -> Reply:
        if len(store.asked) == 1:
            return Reply(reply.status, reply.headers, reply.body, 100_000)
        return problem(401, "unauthorized")

    store.tamper = revoke
    with pytest.raises(Unauthorized):
        connect(store.url).candles(*SERIES, **WINDOW)


@pytest.mark.parametrize("cut", [0, 100_000])
def test_silence_ends_with_its_time_out_within_the_patience(
    store: StoreServer, connect: Connect, cut: int
) -> None:
    """A connection that hangs before or amid a body is given up, and tried again."""

    def hang(asked: Asked, reply: Reply) -> Reply:
        if int(asked.query["start"]) > START:
            return Reply(200, reply.headers, b"more", 0, is_silent=True)
        return Reply(200, reply.headers, reply.body, cut, is_silent=True)

    store.tamper = hang
    with pytest.raises(TimedOut, match="no byte came for"):
        connect(store.url, timeout=0.3, patience=1.5).candles(*SERIES, **WINDOW)

    assert len(store.asked) > 1


def test_patience_ends_a_long_silence(store: StoreServer, connect: Connect) -> None:
    """The patience bounds all tries, however long the time-out is."""
    store.tamper = lambda _, reply: Reply(200, reply.headers, b"more", 0, is_silent=True)

    with pytest.raises(TimedOut):
        connect(store.url, timeout=3600, patience=1).candles(*SERIES, **WINDOW)


def test_connection_that_is_refused_is_named(scripted: ScriptedServer, connect: Connect) -> None:
    """The error has the address and the system's words."""
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1: .*(refused|failed)"):
        connect("http://127.0.0.1:1", patience=0.3).exchanges()


def test_idle_connection_that_the_service_closed_is_made_again(
    scripted: ScriptedServer, connect: Connect
) -> None:
    """Keep-alive ends without a failure, even where it crosses a question."""
    body = b'{"exchanges": [], "next": null}'
    scripted.script(Reply(200, {**JSON, "Content-Length": str(len(body))}, body, len(body)))
    client = connect(scripted.url)

    assert [client.exchanges() for _ in range(3)] == [[], [], []]
    assert len(scripted.asked) == 3


def test_short_json_is_asked_for_again(scripted: ScriptedServer, connect: Connect) -> None:
    """A list that was cut is no shorter list."""
    body = b'{"exchanges": [{"exchange": "a", "name": "A", "market_types": []}], "next": null}'
    scripted.script(Reply(200, JSON, body, 40), Reply(200, JSON, body))

    (only,) = connect(scripted.url).exchanges()
    assert (only.name, len(scripted.asked)) == ("A", 2)


def test_page_of_a_stranger_is_told_at_once(scripted: ScriptedServer, connect: Connect) -> None:
    """Another program answers there, and will the next time."""
    scripted.script(Reply(200, HTML, b"<html>"))

    with pytest.raises(BadBody, match="is this the service"):
        connect(scripted.url).exchanges()
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"exchanges": [{"name": 1}]}', b'{"exchanges": 7}']
)
def test_json_of_another_shape_is_an_error(
    scripted: ScriptedServer, connect: Connect, body: bytes
) -> None:
    """It is an MdpError, not a KeyError."""
    scripted.script(Reply(200, JSON, body))

    with pytest.raises(BadBody):
        connect(scripted.url).exchanges()


def test_series_that_is_repaired_amid_its_answer_is_read_again(
    store: StoreServer, connect: Connect
) -> None:
    """No table is put together of candles from before and after a repair."""

    def heal(asked: Asked, reply: Reply) -> Reply:
        if len(store.asked) > 1:
            return reply
        store.heal(START, 9.0)
        return Reply(reply.status, reply.headers, reply.body, 200_000)

    store.tamper = heal
    got = connect(store.url).candles(*SERIES, **WINDOW)

    assert got.to_ccxt() == [list(row) for row in store.expected(START, END)]
    assert got.to_ccxt()[0][4] == 9.0


def test_next_is_followed_unless_the_caller_gives_a_limit(
    store: StoreServer, connect: Connect
) -> None:
    """A window of several answers is one table."""
    store.most = 1500
    client = connect(store.url)

    assert len(client.candles(*SERIES, **WINDOW)) == 5000
    assert len(store.windows()) == 4
    assert sum(batch.num_rows for batch in client.stream(*SERIES, **WINDOW)) == 5000
    store.windows()
    assert len(client.candles(*SERIES, **WINDOW, limit=700)) == 700
    assert len(store.windows()) == 1


def test_the_limit_counts_over_a_cut(store: StoreServer, connect: Connect) -> None:
    """Rows before the cut count."""
    cuts = iter([100_000])
    store.tamper = lambda _, reply: Reply(200, reply.headers, reply.body, next(cuts, None))

    got = connect(store.url).candles(*SERIES, **WINDOW, limit=3500)
    assert got.to_ccxt() == [list(row) for row in store.expected(START, START + 3500 * MINUTE)]


def test_requests_name_the_client_its_token_and_arrow(store: StoreServer, connect: Connect) -> None:
    """Nothing is compressed on one machine."""
    connect(store.url, token="t0k").candles(*SERIES, **WINDOW)  # noqa: S106 - a token of the test's

    headers = store.asked[0].headers
    assert headers["authorization"] == "Bearer t0k"
    assert headers["user-agent"].startswith("mdp-client/")
    assert (headers["accept"], headers["accept-encoding"]) == (ARROW, "identity")


def test_ten_threads_share_a_client(store: StoreServer) -> None:
    """Each call has its own connection while it lasts."""
    with Client(store.url) as client, ThreadPoolExecutor(10) as pool:

        def count(_: int) -> int:
            return len(client.candles(*SERIES, start=START, end=END))

        assert [*pool.map(count, range(40))] == [5000] * 40
