"""The OpenAPI document, and that it says what is so."""

from typing import Any

import pytest
from openapi_spec_validator import validate

from api.app import OPERATIONS
from api.openapi import make_document
from api.schemas import JobFields, JobForm, JobRequest, JobView, Problem

DOCUMENT = make_document(OPERATIONS)
SUBMIT = DOCUMENT["paths"]["/v1/jobs"]["post"]


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_every_operation_is_in_it_once() -> None:
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}
    assert len(documented) == len(OPERATIONS)


def test_operation_ids_are_different() -> None:
    names = [operation.name for operation in OPERATIONS]

    assert len(names) == len(set(names))


def test_all_three_body_forms_are_described_by_the_models_that_validate() -> None:
    content = SUBMIT["requestBody"]["content"]

    assert set(content) == {"multipart/form-data", "application/json", "image/*", "application/octet-stream"}
    for media_type, model in (("multipart/form-data", JobForm), ("application/json", JobRequest)):
        name = content[media_type]["schema"]["$ref"].rsplit("/", 1)[1]
        assert set(DOCUMENT["components"]["schemas"][name]["properties"]) == set(model.model_fields)
    assert {parameter["name"] for parameter in SUBMIT["parameters"] if parameter["in"] == "query"} == set(
        JobFields.model_fields
    )


def test_unknown_fields_are_excluded_by_the_document_too() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    assert all(schemas[name]["additionalProperties"] is False for name in ("JobForm", "JobRequest", "JobView"))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_error_is_a_problem(operation: Any) -> None:
    said = DOCUMENT["paths"][operation.path][operation.method.lower()]

    failures = {status: answer for status, answer in said["responses"].items() if status >= "400"}

    documented_elsewhere = {str(status) for status in operation.answers}
    for status, answer in failures.items():
        if status not in documented_elsewhere:
            assert answer["content"]["application/problem+json"]["schema"]["$ref"].endswith(Problem.__name__)
    assert operation.is_open or "401" in failures


def test_what_asks_for_no_key_is_known() -> None:
    open_paths = {operation.path for operation in OPERATIONS if operation.is_open}

    assert open_paths == {"/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/scalar.js"}
    assert all(
        (said.get("security") == []) is (path in open_paths)
        for path, methods in DOCUMENT["paths"].items()
        for said in methods.values()
    )


def test_a_job_has_exactly_the_members_of_the_contract() -> None:
    assert set(JobView.model_fields) == {
        "id", "object", "document_type", "options", "lane", "status", "waiting_on", "not_before", "queue",
        "client_reference_id", "metadata", "batch_id", "attempts", "created_at", "started_at", "completed_at",
        "timings_ms", "error", "billing", "result", "webhook_url", "deliveries", "links",
    }  # fmt: skip
