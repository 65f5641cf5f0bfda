"""The script: accounts and their windows, latency, network, faults. JSON, checked; unknown names are errors."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

WindowKind = Literal["sliding", "fixed", "bucket", "in_flight"]
FaultKind = Literal[
    "code",  # answered with this error code
    "cut",  # the connection closes without a byte
    "hang",  # taken, then silence for `seconds`, then the connection closes
    "cut_after",  # taken, then the connection closes
    "slow_body",  # the body comes a byte every 100 ms
    "slow_headers",  # so do the headers
    "html_502",  # a gateway's page
    "garbage",  # 200, not JSON
    "half_body",  # less than Content-Length says
    "empty",  # 200 without a body
    "revoke_tokens",  # once, when it begins: all tokens so far are unknown
    "clock",  # the day's clock is off by `seconds`
    "token_hang",  # the token endpoint is silent for `seconds`
    "token_refused",  # the token endpoint knows no such client
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedAccount(_Model):
    """One set of credentials, what it may do at each endpoint, and how its rate is judged."""

    api_key: str = "sandbox-api-key"
    secret_key: str = "sandbox-secret-key"  # noqa: S105 - the sandbox's own, known to all
    qps: float = Field(2.0, gt=0)
    window: WindowKind = "sliding"
    window_phase_seconds: float = Field(0.0, ge=0, lt=1)
    bucket_size: float | None = Field(None, ge=1)
    day_limit: int | None = Field(None, ge=0)
    total_limit: int | None = Field(None, ge=0)
    endpoints: tuple[str, ...] | None = None


class Latency(_Model):
    """Log-normal time to answer; a median of 0 answers at once."""

    median_seconds: float = Field(0.5, ge=0)
    p95_seconds: float = Field(1.3, ge=0)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.p95_seconds < self.median_seconds:
            raise ValueError("p95_seconds is below median_seconds")
        return self


class ScriptedFault(_Model):
    """What goes wrong, for which share of the calls, and when: in seconds since the script, or by number of the call.

    Intervals are half open; calls count from 1 as they arrive.
    """

    kind: FaultKind
    code: int | None = Field(None, ge=1)
    share: float = Field(1.0, gt=0, le=1)
    after_seconds: float = Field(0.0, ge=0)
    before_seconds: float | None = None
    after_calls: int = Field(0, ge=0)
    before_calls: int | None = None
    endpoint: str | None = None
    api_key: str | None = None
    seconds: float = 60.0

    @model_validator(mode="after")
    def _has_code(self) -> Self:
        if (self.kind == "code") != (self.code is not None):
            raise ValueError("`code` goes with the kind `code`, and only with it")
        return self

    def is_active(self, seconds: float, call: int) -> bool:
        """Whether it applies to a call with this number, so long after the script began."""
        in_time = self.after_seconds <= seconds and (self.before_seconds is None or seconds < self.before_seconds)
        return in_time and self.after_calls <= call and (self.before_calls is None or call < self.before_calls)


class Script(_Model):
    """All a scripted sandbox does."""

    accounts: Annotated[tuple[ScriptedAccount, ...], Field(min_length=1)] = (ScriptedAccount(),)
    latency: Latency = Latency()
    network_delay_seconds: tuple[float, float] = (0.0, 0.0)
    """Every request is late by a random time between these, before it is judged."""
    token_seconds: int = Field(2_592_000, ge=1)
    seed: int = 0
    faults: tuple[ScriptedFault, ...] = ()
