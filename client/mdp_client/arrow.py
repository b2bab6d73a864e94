"""pyarrow's classes, by names that a type checker takes: pyarrow comes without types."""

from typing import Any, TypeAlias

RecordBatch: TypeAlias = Any
"""`pyarrow.RecordBatch`."""

Schema: TypeAlias = Any
"""`pyarrow.Schema`."""

Table: TypeAlias = Any
"""`pyarrow.Table`."""
