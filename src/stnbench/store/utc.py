"""Times in the database."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator

from stnbench.core.errors import StoreError


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite has no zones: it holds the UTC time without one.

    Raises: StoreError when a time without a zone is written.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time as the database takes it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise StoreError(f"the time {value.isoformat()} has no zone", remedy="give an aware time")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - the driver's
        """The time as an aware UTC time."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if dialect.name == "sqlite" else moment.astimezone(UTC)
