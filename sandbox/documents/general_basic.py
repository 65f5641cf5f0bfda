"""Plain text: the answer of `/ocr/v1/general_basic`."""

from collections.abc import Mapping

from sandbox.page import Page


def answer_general_basic(page: Page, *, flags: Mapping[str, bool]) -> dict[str, object]:
    """The success body; a blank page is a success with no words."""
    lines = [line for row in page.rows for line in row.lines]
    words: list[dict[str, object]] = []
    for line in lines:
        entry: dict[str, object] = {"words": line.printed}
        if flags.get("probability"):
            # The engine scores lines, not characters.
            score = round(line.score, 4)
            entry["probability"] = {"average": score, "min": score, "variance": 0.0}
        words.append(entry)
    body: dict[str, object] = {"words_result_num": len(words), "words_result": words}
    if flags.get("detect_direction"):
        body["direction"] = page.direction
    if flags.get("detect_language"):
        body["language"] = 3
    if flags.get("paragraph"):
        body["paragraphs_result"] = [{"words_result_idx": list(range(len(words)))}] if words else []
        body["paragraphs_result_num"] = int(bool(words))
    return body
