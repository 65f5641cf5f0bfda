"""What a batch would do, and when it may be done."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from redis.exceptions import RedisError
from sqlalchemy import Engine

from api.batch_bodies import BatchSubmission
from api.batch_intake import BatchIntake, portions
from api.batch_schemas import BadItemView, DryRunView
from api.outlooks import Outlooks
from api.schemas import JobErrorView
from shared.clock import Clock
from shared.database.batches import BadItem, Batch, Counts
from shared.database.engine import transaction
from shared.database.jobs import NewJob
from shared.database.lines import count_queued
from shared.database.twins import find_answered, options_text
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import JOB_ERRORS, JobStatus, Lane
from shared.domain.prices import cost_of, make_prices, tiers_of
from shared.domain.quota import Billing
from shared.settings import Settings

_MOST_BAD = 100
_FRESH_SECONDS = 10.0
# A rate is measured over so long, and said after so short a time; remembered for so many batches.
_WINDOW_SECONDS, _SHORTEST_SECONDS = 60.0, 3.0
_MOST_RATES = 1_000


class BatchOutlook:
    """Looks ahead; keeps nothing. Safe to share between threads."""

    def __init__(
        self, *, engine: Engine, intake: BatchIntake, outlooks: Outlooks, settings: Settings, clock: Clock
    ) -> None:
        """Take its parts."""
        self._engine = engine
        self._intake = intake
        self._outlooks = outlooks
        self._settings = settings
        self._clock = clock
        self._rates = _Rates()
        self._lock = threading.Lock()
        self._queued: dict[tuple[str, Lane], int] = {}
        self._counted_at = float("-inf")

    def look(self, client_id: str, submission: BatchSubmission) -> DryRunView:
        """What would be done with a submission: each item is looked at, as it would be, and not kept.

        An image behind an address is reckoned as a call. Of equal images in the submission, one is.
        """
        items, number, hits = Counter[str](), 0, 0
        bad: list[BadItemView] = []
        bad_items = 0
        calls = Counter[str]()
        seen: set[tuple[str, str, str]] = set()
        since = self._clock() - timedelta(days=self._settings.cache_days)
        for portion in portions(submission.items):
            good: list[NewJob] = []
            for raw in portion:
                number += 1
                row = self._intake.look_at(submission.fields, raw, number).row
                if isinstance(row, BadItem):
                    bad_items += 1
                    if len(bad) < _MOST_BAD:
                        bad.append(_present(row))
                    continue
                items[row.document_type] += 1
                good.append(row)
            answered: set[tuple[str, str, str]] = set()
            if submission.fields.cache and self._settings.cache_days:
                with transaction(self._engine) as connection:
                    answered = find_answered(connection, client_id, good, answered_since=since)
            for row in good:
                equal = (row.image_sha256 or f"address {row.item_number}", row.document_type, options_text(row.options))
                if submission.fields.cache and (equal in answered or equal in seen):
                    hits += 1
                else:
                    calls[DOCUMENT_TYPES[row.document_type].endpoint] += 1
                seen.add(equal)
        return DryRunView(
            object="dry_run",
            items=number,
            by_document_type=dict(items),
            bad_items=bad_items,
            bad=bad,
            cache_hits=hits,
            calls=calls.total(),
            cost_at_most=self.cost_of(calls),
            estimated_completion_at=self._ends_at(calls, submission.fields.lane),
        )

    def parked(self, counts: Counts) -> int:
        """Items that wait at an endpoint that is not called at the moment."""
        outlooks = {endpoint: self._outlooks.outlook(endpoint) for endpoint in counts.queued}
        return sum(
            count
            for endpoint, count in counts.queued.items()
            if (outlook := outlooks[endpoint]) is not None and not outlook.is_open
        )

    def cost_of(self, calls: Mapping[str, int]) -> str | None:
        """What so many billed calls, by endpoint, cost at most, CNY; None: nobody knows."""
        try:
            states = self._outlooks.states()
        except RedisError:
            return None
        paid = {state.endpoint for state in states if state.billing is Billing.POSTPAID}
        prices = make_prices(self._settings.prices)
        costs = [
            cost_of(0, count, tiers_of(prices, endpoint, Billing.POSTPAID))
            for endpoint, count in calls.items()
            if endpoint in paid
        ]
        return f"{sum(costs, Decimal(0)):.2f}"

    def ends_at(self, batch: Batch, counts: Counts) -> datetime | None:
        """When a batch may be completed; None: nobody knows, or nothing is left to do."""
        if counts.total == counts.final:
            return None
        if counts.by_status[JobStatus.QUEUED] == 0:
            return self._clock()
        end, rate = self._ends_at(counts.queued, batch.lane), self._rates.of(batch.id, counts.final)
        if end is None or not rate:
            return end
        # The quota may allow more than the workers manage.
        return max(end, self._clock() + timedelta(seconds=(counts.total - counts.final) / rate))

    def _ends_at(self, waiting: Mapping[str, int], lane: Lane) -> datetime | None:
        """When so many more jobs, by endpoint, may have been called for: others take their turns between them."""
        if not waiting:
            return None
        queued = self._count_queued()
        ends = []
        for endpoint, count in waiting.items():
            outlook = self._outlooks.outlook(endpoint)
            others = sum(queued.get((endpoint, line), 0) for line in Lane if line is lane or line is Lane.INTERACTIVE)
            # Lines take turns: of others' work, no more than as much again comes first.
            end = None if outlook is None else outlook.starts_at(max(count, min(others, 2 * count)), self._clock())
            if end is None:
                return None
            ends.append(end)
        return max(ends)

    def _count_queued(self) -> dict[tuple[str, Lane], int]:
        """All that waits, looked up every few seconds for all who ask: with a million it takes a while."""
        with self._lock:
            if time.monotonic() - self._counted_at > _FRESH_SECONDS:
                with transaction(self._engine) as connection:
                    self._queued = count_queued(connection)
                self._counted_at = time.monotonic()
            return self._queued


class _Rates:
    """How fast batches went lately, by what those who asked were told. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def of(self, batch_id: str, final: int) -> float | None:
        """Items a second since somebody asked some time ago; None: nobody did, or nothing has ended since."""
        now = time.monotonic()
        with self._lock:
            since, before = self._told.get(batch_id, (now, final))
            if batch_id not in self._told or now - since > _WINDOW_SECONDS:
                self._told[batch_id] = (now, final)
                if len(self._told) > _MOST_RATES:
                    self._told.popitem(last=False)
        seconds, ended = now - since, final - before
        return ended / seconds if _SHORTEST_SECONDS < seconds < 2 * _WINDOW_SECONDS and ended > 0 else None


def _present(row: BadItem) -> BadItemView:
    view = JobErrorView(code=row.error, detail=row.detail, retryable=JOB_ERRORS[row.error][1], billed=False)
    return BadItemView(number=row.job.item_number or 0, name=row.job.item_name, error=view)
