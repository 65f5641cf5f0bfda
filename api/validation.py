"""From what was sent to checked values, with every wrong field listed."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.datastructures import MultiDict

from api.schemas import JobFields
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import FieldError, InvalidRequestError

ModelT = TypeVar("ModelT", bound=BaseModel)

_MOST_ERRORS = 50
_LONGEST_NAME = 100


def pointer(*names: str | int) -> str:
    """A JSON pointer (RFC 6901); long names, which only a mistake can be, are cut."""
    return "".join("/" + str(name)[:_LONGEST_NAME].replace("~", "~0").replace("/", "~1") for name in names)


def validate(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Values of a model.

    Raises:
        InvalidRequestError: some are missing, unknown or wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidRequestError(field_errors(error, model)) from None


def validate_job_fields(values: Mapping[str, Any], form: type[JobFields]) -> JobFields:
    """Fields of a job, the options checked against the table of document types and completed with defaults.

    Args:
        form: the body's form; its fields are the known ones.

    Raises:
        InvalidRequestError: some are missing, unknown or wrong; those of the options are listed too.
    """
    own = {name: value for name, value in values.items() if name in JobFields.model_fields}
    errors = [unknown_field(name, form) for name in values if name not in form.model_fields]
    fields = None
    try:
        fields = JobFields.model_validate(own)
    except ValidationError as error:
        errors += field_errors(error, form)
    options: dict[str, str | bool] = {}
    name, given = own.get("document_type"), own.get("options", {})
    if isinstance(name, str) and name in DOCUMENT_TYPES and isinstance(given, dict):
        try:
            options = DOCUMENT_TYPES[name].validate_options(given)
        except InvalidRequestError as error:
            errors += [FieldError(pointer(*e.pointer.split("/", 2)[1:]), e.detail) for e in error.errors]
    if errors or fields is None:
        raise InvalidRequestError(errors[:_MOST_ERRORS])
    return fields.model_copy(update={"options": options})


def single_values(arguments: MultiDict[str, str]) -> dict[str, str]:
    """Parameters of a query or a form, each given once.

    Raises:
        InvalidRequestError: some are given twice.
    """
    twice = [name for name, values in arguments.lists() if len(values) > 1]
    if twice:
        raise InvalidRequestError([FieldError(pointer(name), "is given more than once") for name in twice])
    return dict(arguments.items())


def validate_query(model: type[ModelT], arguments: MultiDict[str, str]) -> ModelT:
    """Values of a query.

    Raises:
        InvalidRequestError: some are unknown, wrong, or given twice.
    """
    return validate(model, single_values(arguments))


def unknown_field(name: str, model: type[BaseModel]) -> FieldError:
    """The error of a field that the model does not know."""
    return FieldError(pointer(name), f"is unknown; known: {', '.join(model.model_fields) or 'none'}")


def field_errors(error: ValidationError, model: type[BaseModel]) -> list[FieldError]:
    """Our words for what pydantic found. What was sent is not quoted: it may be somebody's name."""
    found = error.errors(include_url=False, include_input=False)
    return [_field_error(entry, model) for entry in found[:_MOST_ERRORS]]


def _field_error(entry: ErrorDetails, model: type[BaseModel]) -> FieldError:
    where = entry["loc"]
    context = entry.get("ctx", {})
    match entry["type"]:
        case "extra_forbidden":
            return unknown_field(str(where[0]), model)
        case "missing":
            detail = "is required"
        case "enum" | "literal_error":
            detail = f"must be one of: {str(context['expected']).replace(' or ', ', ')}".replace("'", "")
        case "value_error":
            detail = str(context["error"])
        case "string_type":
            detail = "must be a string"
        case _:
            detail = entry["msg"].replace("Input should", "must").replace("String should", "must")
            detail = detail[:1].lower() + detail[1:]
    return FieldError(pointer(*where), detail)
