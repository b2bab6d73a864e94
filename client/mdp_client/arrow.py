"""pyarrow's classes, by names for a type checker: pyarrow comes without types."""

from typing import Any, TypeAlias

RecordBatch: TypeAlias = Any
"""`pyarrow.RecordBatch`."""

Schema: TypeAlias = Any
"""`pyarrow.Schema`."""

Table: TypeAlias = Any
"""`pyarrow.Table`."""
