"""In-memory doubles that satisfy the production protocols."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from shared.domain.documents import DocumentType
from shared.domain.errors import ProviderError
from shared.domain.result import FieldStatus, FieldValue, Recognition
from worker.providers.protocol import Credentials, PreparedImage


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **parts: float) -> None:
        self.now += timedelta(**parts)


def recognition(**values: str) -> Recognition:
    """What a provider reads: these fields."""
    fields = {name: FieldValue(value, value, name, FieldStatus.READ) for name, value in values.items()}
    return Recognition(fields, upstream_log_id="1790000000000000001", raw={"log_id": 1790000000000000001})


class FakeProvider:
    """Answers from a script: each entry is raised or returned, the last one again and again."""

    def __init__(self, *script: Recognition | ProviderError) -> None:
        self.script = list(script) or [recognition(name="测样丽", address="样例路1号", id_number="999999199003070012")]
        self.calls: list[str] = []
        self.token_fetches = 0
        self.bodies: list[bytes] = []

    def fetch_token(self, credentials: Credentials) -> tuple[str, float]:
        self.token_fetches += 1
        return f"token-{self.token_fetches}", 2_592_000.0

    def warm_up(self, base_url: str, *, measure: bool) -> float | None:
        return None

    def encode(self, document: DocumentType, options: Mapping[str, object], image: PreparedImage) -> bytes:
        return image.content

    def recognize(
        self,
        base_url: str,
        token: str,
        document: DocumentType,
        options: Mapping[str, object],
        body: bytes,
        image: PreparedImage,
        *,
        safe_until: Callable[[], float],
    ) -> Recognition:
        self.calls.append(token)
        self.bodies.append(body)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, ProviderError):
            raise ProviderError(
                answer.kind,
                answer.detail,
                upstream_code=answer.upstream_code,
                error_code=answer.error_code,
                max_attempts=answer.max_attempts,
                called=answer.called,
                answered=answer.answered,
            )
        return answer
