"""`/v1/usage`: what the client used, by day, type and account."""

from datetime import timedelta

from flask import Response, request

from api.auth import current_client
from api.operations import Answer, Operation
from api.services import services
from api.usage_schemas import UsageCounts, UsageQuery, UsageReport, UsageView
from api.validation import validate_query
from shared.database.engine import transaction
from shared.database.usage import Usage, read_usage, total_of
from shared.domain.errors import FieldError, InvalidRequestError
from shared.domain.prices import make_prices
from shared.domain.quota import quota_day

_MOST_DAYS = 366
_DEFAULT_DAYS = 30


def read_usage_report() -> Response:
    """The client's calls of some days, and what they cost."""
    query = validate_query(UsageQuery, request.args)
    settings = services().settings
    last = query.to or quota_day(services().clock(), settings.quota_zone)
    first = query.from_ or last - timedelta(days=_DEFAULT_DAYS - 1)
    if first > last:
        raise InvalidRequestError([FieldError("/from", "is after `to`")])
    if (last - first).days >= _MOST_DAYS:
        raise InvalidRequestError([FieldError("/from", f"must be less than {_MOST_DAYS} days before `to`")])
    with transaction(services().engine) as connection:
        usages = read_usage(
            connection,
            first,
            last,
            by=query.by,
            prices=make_prices(settings.prices),
            zone=settings.quota_zone,
            client_id=current_client(),
        )
    report = UsageReport(
        object="usage",
        **{"from": first},
        to=last,
        by=query.by,
        currency="CNY",
        data=[
            UsageView(day=usage.day, document_type=usage.document_type, account=usage.account, **_counts(usage))
            for usage in usages
        ],
        total=UsageCounts(**_counts(total_of(usages))),
    )
    return Response(report.model_dump_json(by_alias=True), content_type="application/json")


def _counts(usage: Usage) -> dict[str, int | str]:
    counts = ("calls", "succeeded", "failed", "unfinished", "billed", "saved")
    return {name: getattr(usage, name) for name in counts} | {"cost": f"{usage.cost:.4f}"}


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/usage",
        name="read_usage",
        summary="What was used, by day, document type and account",
        view=read_usage_report,
        query=UsageQuery,
        answers={200: Answer("The client's own calls", UsageReport)},
    ),
)
