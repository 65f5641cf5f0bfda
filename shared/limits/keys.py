"""Every Redis key. None of them holds what can't be rebuilt.

One booking looks at the keys of several accounts, so all keys must be on one server: a primary with replicas, no
cluster (which Celery does not support either).
"""


def pace(account_id: str, endpoint: str) -> str:
    """The instant of the next free slot."""
    return f"kz:{account_id}:{endpoint}:pace"


def pause(account_id: str, endpoint: str) -> str:
    """There while an endpoint of an account must not be called."""
    return f"kz:{account_id}:{endpoint}:pause"


def day_counts(account_id: str, endpoint: str) -> str:
    """Calls booked on a provider's day; the day follows, in days since 1970-01-01."""
    return f"kz:{account_id}:{endpoint}:day:"


def second_counts(account_id: str, endpoint: str) -> str:
    """Calls booked for a second, for people to look at; the second follows, since 1970."""
    return f"kz:{account_id}:{endpoint}:second:"


def total_count(account_id: str, endpoint: str) -> str:
    """Calls booked in all."""
    return f"kz:{account_id}:{endpoint}:total"


def in_flight(account_id: str, endpoint: str) -> str:
    """Calls booked or under way, by when they are given up for lost."""
    return f"kz:{account_id}:{endpoint}:flying"


def learnt(account_id: str, endpoint: str) -> str:
    """What refusals taught: the share of the pace that is used, and since when."""
    return f"kz:{account_id}:{endpoint}:learnt"


def spread(account_id: str) -> str:
    """What each process measured of the time from permit to arrival."""
    return f"kz:{account_id}:spread"


def spread_probe(account_id: str) -> str:
    """There until the network may be measured again."""
    return f"kz:{account_id}:spread:probe"


def token(account_id: str) -> str:
    """The account's access token, sealed."""
    return f"kz:{account_id}:token"


def token_lock(account_id: str) -> str:
    """Held by the one process that fetches a token."""
    return f"kz:{account_id}:token:lock"


def token_failure(account_id: str) -> str:
    """There for a while after a fetch failed."""
    return f"kz:{account_id}:token:failure"


def feed_turns(lane: str, endpoint: str) -> str:
    """Whose turn was the last: the client, and the last batch of each client."""
    return f"kz:feed:{lane}:{endpoint}"


def preparing(worker: str) -> str:
    """Jobs whose images a worker process has in hand; what is left of it when the process dies is evidence."""
    return f"kz:{worker}:preparing"


WORKERS = "kz:workers"
"""Worker processes, by when each was last alive, s."""

FEEDING = "kz:feeding"
"""Held by the one process that feeds the queues at the moment."""

MEMORY = "kz:memory"
"""Gone when Redis has lost what it held."""

FINAL_CHANNEL = "kz:final"
"""Ids of jobs that became final are published here, to wake held polls."""
