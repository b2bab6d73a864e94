"""Parts of record batches by time, without a copy and without pyarrow's kernels."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from mdp_client.arrow import RecordBatch


def between(batches: Iterable[RecordBatch], start: int, end: int) -> Iterator[RecordBatch]:
    """Yield the candles that open in `[start, end)`; no batch is empty."""
    for batch in batches:
        times = _times(batch)
        first, stop = bisect_left(times, start), bisect_left(times, end)
        if first < stop:
            yield batch if stop - first == len(times) else batch.slice(first, stop - first)


def _times(batch: RecordBatch) -> memoryview:
    column = batch.column(0)
    if not len(column):
        return memoryview(b"").cast("q")
    return memoryview(column.buffers()[1]).cast("q")[column.offset :][: len(column)]
