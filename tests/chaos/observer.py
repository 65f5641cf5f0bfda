"""Sends pictures, keeps every 202, and holds the outcome against the promises."""

import hashlib
import io
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image
from sqlalchemy import func, select

from sandbox.scripted.answers import card_number
from shared.database.engine import transaction
from shared.database.tables import attempts, jobs, results
from shared.domain.errors import DatabaseUnavailableError
from shared.domain.job import JobStatus
from tests.chaos.cluster import Cluster

_SENDERS = 4


@dataclass(frozen=True)
class Outcome:
    """What became of one load: counts, and `seconds` from the end of the fault to the last terminal state.

    `over_quota`: calls that the vendor refused because they came too fast. `untold`: jobs whose end no webhook told;
    `told_differently`: those told under more than one id. `told_again`: deliveries beyond one a job.
    """

    accepted: int
    lost: int
    doubled_results: int
    wrong_results: int
    failed: int
    calls: int
    wasted_calls: int
    excused_calls: int
    over_quota: int
    processing: int
    refused_by_api: int
    untold: int
    told_differently: int
    told_again: int
    seconds: float


@dataclass
class Observer:
    """One load on a cluster."""

    cluster: Cluster
    seed: int
    _accepted: dict[str, str] = field(default_factory=dict)
    _refused: int = 0
    _calls_before: int = 0
    _over_quota_before: int = 0
    _pause: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def send(self, pictures: int, *, over_seconds: float = 0.0) -> None:
        """Send this many; who is not answered sends the same again under the same key, as a careful client does.

        Args:
            over_seconds: spread evenly over so long; 0: as fast as they are taken.
        """
        self._pause = over_seconds / pictures
        self._calls_before, self._over_quota_before = self._calls(), self._over_quota()
        with ThreadPoolExecutor(_SENDERS) as pool:
            list(pool.map(self._send_one, range(pictures)))

    def _send_one(self, number: int) -> None:
        time.sleep(max(0.0, number * self._pause - self.elapsed))
        picture = _picture(self.seed * 100_000 + number)
        headers = {"Authorization": f"Bearer {self.cluster.api_key}", "Content-Type": "image/jpeg"}
        headers["Idempotency-Key"] = f"chaos-{self.seed}-{number}"
        lane = "interactive" if number % 4 == 0 else "bulk"
        query = {"document_type": "bank_card", "lane": lane, "client_reference_id": f"canary-{self.seed}-{number}"}
        while True:
            try:
                answer = httpx.post(
                    f"{self.cluster.api_url}/v1/jobs",
                    params=query,
                    content=picture,
                    headers=headers,
                    timeout=15,
                    trust_env=False,
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 202:
                with self._lock:
                    self._accepted[answer.json()["id"]] = hashlib.sha256(picture).hexdigest()
                return
            if answer is not None and answer.status_code not in (409, 500, 503):
                raise AssertionError(f"{answer.status_code}: {answer.text}")
            if answer is not None and answer.status_code == 500:
                raise AssertionError("a 500 is a defect, whatever is away")
            with self._lock:
                self._refused += 1
            time.sleep(0.3)

    def card_numbers(self) -> list[str]:
        """What is to be read from the pictures accepted so far."""
        with self._lock:
            return [card_number(sha256) for sha256 in self._accepted.values()]

    def wait(self, healed_at: float, *, patience: float) -> Outcome:
        """Wait until all that was accepted is final, or patience ends; then count.

        Args:
            healed_at: when the fault was over, by `time.monotonic`.
        """
        end = time.monotonic() + patience
        while self._open() and time.monotonic() < end:
            time.sleep(0.2)
        seconds = time.monotonic() - healed_at
        while self._accepted.keys() - self._told().keys() and time.monotonic() < end:
            time.sleep(0.2)
        return self._count(seconds)

    def _told(self) -> dict[str, list[str]]:
        """The ids of the webhooks that told of each job, in the order in which they came."""
        told: dict[str, list[str]] = {}
        for seen in list(self.cluster.told.seen):
            told.setdefault(json.loads(seen.body)["data"]["job_id"], []).append(seen.headers["webhook-id"])
        return {job_id: ids for job_id, ids in told.items() if job_id in self._accepted}

    def _open(self) -> int:
        statement = select(func.count()).where(jobs.c.id.in_(list(self._accepted)), jobs.c.completed_at.is_(None))
        try:
            with transaction(self.cluster.engine) as connection:
                return int(connection.execute(statement).scalar_one())
        except DatabaseUnavailableError:
            return 1

    def _count(self, seconds: float) -> Outcome:
        ids = list(self._accepted)
        with transaction(self.cluster.engine) as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.status).where(jobs.c.id.in_(ids))).all()
            read = connection.execute(select(results.c.job_id, results.c.fields).where(results.c.job_id.in_(ids))).all()
            processing = connection.execute(
                select(func.count()).select_from(jobs).where(jobs.c.status == JobStatus.PROCESSING)
            ).scalar_one()
            excused = connection.execute(
                select(func.count())
                .select_from(attempts)
                .where(attempts.c.job_id.in_(ids), attempts.c.outcome.is_distinct_from("succeeded"))
            ).scalar_one()
            repeated = connection.execute(
                select(func.count())
                .select_from(attempts)
                .where(attempts.c.job_id.in_(ids), attempts.c.outcome == "succeeded")
            ).scalar_one() - len(read)
        final = [row for row in rows if JobStatus(row.status).is_final]
        wrong = [
            row.job_id for row in read if row.fields["card_number"]["value"] != card_number(self._accepted[row.job_id])
        ]
        calls = self._calls() - self._calls_before
        told = self._told()
        return Outcome(
            accepted=len(ids),
            lost=len(ids) - len(final),
            doubled_results=len(read) - len({row.job_id for row in read}),
            wrong_results=len(wrong),
            failed=sum(row.status != JobStatus.SUCCEEDED for row in final),
            calls=calls,
            wasted_calls=calls - len(ids),
            excused_calls=excused + repeated,
            over_quota=self._over_quota() - self._over_quota_before,
            processing=processing,
            refused_by_api=self._refused,
            untold=len(self._accepted.keys() - told.keys()),
            told_differently=sum(len(set(events)) > 1 for events in told.values()),
            told_again=sum(len(events) - 1 for events in told.values()),
            seconds=seconds,
        )

    def _calls(self) -> int:
        return sum(int(usage["accepted"]) for usage in self._usages())

    def _over_quota(self) -> int:
        """Calls that the sandbox's own window refused; the ones a fault refuses are not among them."""
        usages = self._usages()
        refused = sum(sum(usage["refused"].values()) for usage in usages)
        return int(refused - sum(usage["faults"].get("code", 0) for usage in usages))

    def _usages(self) -> list[dict[str, Any]]:
        accounts = self.cluster.sandbox.stats()["by_account"]
        return [usage for account in accounts.values() for usage in account.values()]


def _picture(number: int) -> bytes:
    """A small JPEG that no other number has."""
    noise = random.Random(number)
    buffer = io.BytesIO()
    Image.frombytes("L", (64, 48), noise.randbytes(64 * 48)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
