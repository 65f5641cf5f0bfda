"""Failures that end a command with a paragraph for the user instead of a stack trace."""

from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from kazheng.errors import KazhengError as ClientError
from kazheng.stack.errors import StackError
from shared.database.accounts import SecretUnreadableError
from shared.domain.errors import KazhengError, UnavailableError
from shared.settings import SettingsError


class CommandError(Exception):
    """The command can't do what it was asked; the message says what to do."""


_EXPLAINED = (CommandError, SettingsError, StackError, SecretUnreadableError, ClientError, KazhengError)


# PostgreSQL's "undefined_table" and "undefined_column".
_NOT_MIGRATED = {"42P01", "42703"}


def explain(error: Exception) -> str | None:
    """The paragraph to show, or None for a defect of ours, which deserves its stack trace."""
    if isinstance(error, UnavailableError):
        return f"{error.detail} `kazheng doctor` tells more."
    if isinstance(error, _EXPLAINED):
        return str(error)
    if isinstance(error, OperationalError):
        # The driver's own words name the server and the role, never the password.
        return f"The database does not answer: {str(error.orig).strip()}\nCheck KAZHENG_DATABASE_URL."
    if isinstance(error, ProgrammingError) and getattr(error.orig, "pgcode", None) in _NOT_MIGRATED:
        return "The database is not up to date. Run `kazheng migrate`."
    if isinstance(error, ArgumentError):
        return "KAZHENG_DATABASE_URL is no address of a database; it looks like postgresql://user:password@host/name."
    return None
