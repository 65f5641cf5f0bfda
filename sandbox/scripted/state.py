"""What a scripted sandbox remembers: tokens, windows, counts, and when it accepted and refused."""

import random
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone

from sandbox.scripted.script import Script, ScriptedAccount, ScriptedFault
from sandbox.scripted.windows import Window, make_window

_SHANGHAI = timezone(timedelta(hours=8))
_REMEMBERED_CALLS = 200_000
_BEFORE_ACCEPTING = frozenset({"code", "cut"})
_OF_THE_TOKEN = frozenset({"token_hang", "token_refused"})
_OF_THE_SERVER = frozenset({"revoke_tokens", "clock"})


@dataclass
class Usage:
    """Calls of one account at one endpoint."""

    window: Window
    accepted: int = 0
    total: int = 0
    today: int = 0
    day: date | None = None
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class State:
    """Everything but the HTTP. One thread uses it."""

    def __init__(self, script: Script) -> None:
        """Begin with a script."""
        self._tokens: dict[str, tuple[str, float]] = {}
        self.tokens_issued = self.token_requests = 0
        self.in_flight = self.most_in_flight = 0
        self.play(script)

    def play(self, script: Script) -> None:
        """Begin a script: windows and counts are new, tokens stay."""
        self.script = script
        self.random = random.Random(script.seed)  # noqa: S311 - a benchmark is to be repeatable
        self.accounts = {account.api_key: account for account in script.accounts}
        self.usage: dict[tuple[str, str], Usage] = {}
        self.reset()

    def set_faults(self, faults: tuple[ScriptedFault, ...]) -> None:
        """Other faults, counted from now; all else goes on."""
        self.script = self.script.model_copy(update={"faults": faults})
        self.began = time.monotonic()
        self._revoked: set[int] = set()

    def reset(self) -> None:
        """Count from zero; windows, days and totals go on."""
        self.began = time.monotonic()
        self.arrivals = 0
        self.log: deque[tuple[float, str, str, int]] = deque(maxlen=_REMEMBERED_CALLS)
        for usage in self.usage.values():
            usage.accepted, usage.refused, usage.faults = 0, Counter(), Counter()
        self.most_in_flight = self.in_flight
        self._revoked = set()

    def issue_token(self, api_key: str, secret_key: str) -> str | None:
        """A new token, or None for wrong keys."""
        self._revoke_if_due()
        account = self.accounts.get(api_key)
        if account is None or account.secret_key != secret_key:
            return None
        self.tokens_issued += 1
        expires_at = self.now() + self.script.token_seconds
        token = f"24.{secrets.token_hex(16)}.{self.script.token_seconds}.{int(expires_at)}.282335-10000001"
        self._tokens[token] = (api_key, expires_at)
        return token

    def account_of(self, token: str) -> ScriptedAccount | int:
        """Whose token it is, or the error: 100, 110, 111."""
        if not token:
            return 100
        self._revoke_if_due()
        found = self._tokens.get(token)
        account = self.accounts.get(found[0]) if found else None
        if found is None or account is None:
            return 110
        return 111 if self.now() >= found[1] else account

    def admit(self, account: ScriptedAccount, endpoint: str, arrived: float) -> int:
        """0, or the error with which a call that arrived then, by the monotonic clock, is refused: 17, 19, 18."""
        usage = self.usage_of(account, endpoint)
        today = datetime.fromtimestamp(self.now(), _SHANGHAI).date()
        if usage.day != today:
            usage.day, usage.today = today, 0
        if account.day_limit is not None and usage.today >= account.day_limit:
            return 17
        if account.total_limit is not None and usage.total >= account.total_limit:
            return 19
        if not usage.window.admit(arrived):
            return 18
        usage.accepted += 1
        usage.total += 1
        usage.today += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return 0

    def leave(self, window: Window) -> None:
        """A call that this window took is over."""
        self.in_flight -= 1
        window.leave()

    def usage_of(self, account: ScriptedAccount, endpoint: str) -> Usage:
        """Calls of an account at an endpoint."""
        usage = self.usage.get((account.api_key, endpoint))
        if usage is None:
            usage = self.usage[account.api_key, endpoint] = Usage(make_window(account))
        return usage

    def fault(self, account: ScriptedAccount, endpoint: str, *, is_accepted: bool) -> ScriptedFault | None:
        """What goes wrong with this call, before or after it was accepted."""
        if not self.script.faults:
            return None
        seconds = time.monotonic() - self.began
        for fault in self.script.faults:
            if fault.kind in _OF_THE_TOKEN | _OF_THE_SERVER or (fault.kind in _BEFORE_ACCEPTING) == is_accepted:
                continue
            concerned = fault.endpoint in (None, endpoint) and fault.api_key in (None, account.api_key)
            if concerned and fault.is_active(seconds, self.arrivals) and self.random.random() < fault.share:
                self.usage_of(account, endpoint).faults[fault.kind] += 1
                return fault
        return None

    def token_fault(self, api_key: str) -> ScriptedFault | None:
        """What goes wrong with a request for a token."""
        for fault in self._active():
            if fault.kind in _OF_THE_TOKEN and fault.api_key in (None, api_key) and self.random.random() < fault.share:
                return fault
        return None

    def now(self) -> float:
        """The sandbox's clock, seconds since 1970."""
        return time.time() + sum(fault.seconds for fault in self._active() if fault.kind == "clock")

    def stats(self, *, arrivals: bool) -> dict[str, object]:
        """All counts, as JSON values."""
        accounts: dict[str, dict[str, object]] = {}
        for (api_key, endpoint), usage in self.usage.items():
            accounts.setdefault(api_key, {})[endpoint] = {
                "accepted": usage.accepted,
                "today": usage.today,
                "refused": dict(usage.refused),
                "faults": dict(usage.faults),
            }
        said: dict[str, object] = {
            "now": time.monotonic(),
            "began": self.began,
            "arrivals": self.arrivals,
            "tokens_issued": self.tokens_issued,
            "token_requests": self.token_requests,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "by_account": accounts,
        }
        if arrivals:
            said["log"] = list(self.log)
        return said

    def _active(self) -> list[ScriptedFault]:
        if not self.script.faults:
            return []
        seconds = time.monotonic() - self.began
        return [fault for fault in self.script.faults if fault.is_active(seconds, self.arrivals)]

    def _revoke_if_due(self) -> None:
        for number, fault in enumerate(self.script.faults):
            is_due = fault.kind == "revoke_tokens" and number not in self._revoked
            if is_due and fault.is_active(time.monotonic() - self.began, self.arrivals):
                self._revoked.add(number)
                self._tokens.clear()
