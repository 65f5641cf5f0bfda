"""Every Redis key. None of them holds what can't be rebuilt.

The part in braces keeps the keys of one script on one node, should the server ever be a cluster.
"""


def pace(account_id: str, endpoint: str) -> str:
    """The instant of the next free slot."""
    return f"kz:{{{account_id}:{endpoint}}}:pace"


def day_counts(account_id: str, endpoint: str) -> str:
    """Calls booked on a provider's day; the day follows, in days since 1970-01-01."""
    return f"kz:{{{account_id}:{endpoint}}}:day:"


def pause(account_id: str, endpoint: str) -> str:
    """There while an endpoint of an account must not be called."""
    return f"kz:{{{account_id}:{endpoint}}}:pause"


def token(account_id: str) -> str:
    """The account's access token, sealed."""
    return f"kz:{{{account_id}}}:token"


def token_lock(account_id: str) -> str:
    """Held by the one process that fetches a token."""
    return f"kz:{{{account_id}}}:token:lock"


def token_failure(account_id: str) -> str:
    """There for a while after a fetch failed."""
    return f"kz:{{{account_id}}}:token:failure"


FINAL_CHANNEL = "kz:final"
"""Ids of jobs that became final are published here, to wake held polls."""
