"""Answer of `/v1/document-types`."""

from api.schemas import Contract, DocumentTypeName


class OptionView(Contract):
    """One option of a document type; `choices` null: true or false."""

    name: str
    default: str | bool
    choices: list[str] | None
    description: str


class DocumentFieldView(Contract):
    """One field a result has; `asked`: a recognition that finds none of these has failed."""

    name: str
    label: str
    kind: str
    asked: bool


class DocumentTypeView(Contract):
    """What can be read. The keys of `fields` are the sides; one-sided documents have the key `""`."""

    name: DocumentTypeName
    label: str
    options: list[OptionView]
    fields: dict[str, list[DocumentFieldView]]
    checks: list[str]


class DocumentTypeList(Contract):
    """All document types."""

    data: list[DocumentTypeView]
