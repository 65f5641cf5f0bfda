"""`/v1/document-types`: what can be read, with options, fields and checks."""

from flask import Response, request

from api.document_schemas import DocumentTypeList
from api.operations import Answer, Operation
from api.presenting import present_document_type, to_json
from api.schemas import NoQuery
from api.validation import validate_query
from shared.domain.documents import DOCUMENT_TYPES


def list_document_types() -> Response:
    """The table of document types."""
    validate_query(NoQuery, request.args)
    body = DocumentTypeList(data=[present_document_type(row) for row in DOCUMENT_TYPES.values()])
    return Response(to_json(body), content_type="application/json")


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/document-types",
        name="list_document_types",
        summary="List what can be read",
        view=list_document_types,
        query=NoQuery,
        answers={200: Answer("All document types", DocumentTypeList)},
    ),
)
