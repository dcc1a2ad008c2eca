"""What `instil init` asks of a column, read aloud: names and values -> questions and answers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from instil.data.build import render_example
from instil.init.inspect import Wishes
from instil.init.starter import Starter, write_starter
from instil.types import Role
from starting import unedited


class Case(NamedTuple):
    """A label column beside a text."""

    name: str
    values: Sequence[object]
    text: str = "text"
    names: dict[str, str] = {}  # noqa: RUF012


SCALE = ["1", "2", "3", "4", "5"]
CASES = (
    # Names for a quality.
    Case("sarcastic", "01", "headline"),
    Case("is_sarcastic", [0.0, 1.0], "headline"),
    Case("toxic", "01", "comment"),
    Case("spam", ["True", "False"], "email"),
    Case("isSpam", ["true", "false"], "message"),
    Case("relevant", ["Y", "N"]),
    Case("helpful", ["t", "f"], "review"),
    Case("Urgent", ["Yes", "No"], "ticket"),
    Case("offensive_label", ["-1", "1"], "tweet"),
    Case("funny", ["yes", "no", "YES", "nan"], "comment"),
    # Names for a kind of text.
    Case("is_duplicate", "01", "question"),
    Case("complaint", "01", "email"),
    Case("insult", "01", "comment"),
    Case("clickbait", "10", "title"),
    # Names of events, of things, and sentences.
    Case("churn", "01", "message"),
    Case("has_refund", ["0", "1"], "ticket"),
    Case("should_escalate", ["no", "yes"], "ticket"),
    Case("contains_pii", ["False", "True"]),
    Case("needs reply", "01", "email"),
    Case("fraud_flag", ["N", "Y"], "statement"),
    Case("hate", "01", "tweet"),
    Case("sarcasm", "01", "tweet"),
    Case("will_buy", "01", "review"),
    Case("mentions price", ["TRUE", "FALSE"], "review"),
    # Names that say nothing.
    Case("label", "01", "sentence"),
    Case("target", ["-1", "1"]),
    Case("y", "01"),
    Case("class", "01", "document"),
    Case("gold_label", ["True", "False"], "claim"),
    Case("answer", ["True", "False"], "question"),
    Case("label", ["yes", "no"], "question"),
    Case("relevant", ["Yes", "No", "Maybe"], "document"),
    Case("answer", ["no", "unsure", "yes"], "question"),
    Case("helpful", ["very", "somewhat", "hardly"], "review"),
    Case("has_refund", ["full", "partial"], "ticket"),
    Case("label", ["+", "-"], "review"),
    Case("label_text", ["bad", "good"], "review"),
    Case("label", "012", "sentence"),
    Case("category", "0123", "article"),
    Case("intent", ["10", "20", "30"]),
    # Names of a scale or an attribute with two values.
    Case("sentiment", "01", "review"),
    Case("sentiment", ["-1", "0", "1"], "tweet"),
    Case("polarity", "04", "tweet"),
    Case("sentiment", ["positive", "negative"], "review"),
    Case("quality", "01", "answer"),
    Case("severity", ["-1", "1"], "ticket"),
    Case("gender", "01"),
    Case("stance", ["0", "1"], "tweet"),
    # Names of the user's.
    Case("sarcastic", "01", "headline", {"0": "serious", "1": "sarcastic"}),
    Case("is_spam", "01", "email", {"1": "spam", "0": "ham"}),
    Case("label", "012", "review", {"2": "good", "0": "bad", "1": "mixed"}),
    Case("relevant", "01", "document", {"0": "no", "1": "yes"}),
    Case("stars", "135", "review", {"1": "poor", "3": "fair", "5": "great"}),
    # Ratings.
    Case("stars", SCALE, "review"),
    Case("rating", [n / 2 for n in range(1, 11)], "review"),
    Case("stars", ["1", "5"], "review"),
    Case("helpful", SCALE, "answer"),
    Case("difficulty", ["1", "2", "3"], "question"),
    Case("overall_score", [n / 10 for n in range(0, 101)], "letter"),
    Case("toxicity", [n / 100 for n in range(101)], "comment"),
    Case("score", [0.0, 1 / 3, 2 / 3, 1.0], "review"),
    Case("score", [0.10000000149011612, 0.8999999761581421], "review"),
    Case("rating", ["1 star", "2 stars", "10 stars"], "review"),
    # Codes and dates are texts.
    Case("zip", ["01234", "02139", "90210"], "letter"),
    Case("version", ["1.1", "1.10", "2.0"], "ticket"),
    Case("sku", ["007", "042", "100"], "review"),
    Case("year", ["1999", "2000", "2001"], "article"),
    Case("date", ["2024-05-01", "2024-05-02"], "note"),
    # Named classes.
    Case("topic", ["sport", "politics", "arts"], "article"),
    Case("Categories", ["News", "news", "Sport"]),
    Case("department", ["billing", "shipping", "returns"], "ticket"),
    Case("intent", [f"intent_{n:02}" for n in range(77)], "utterance"),
    Case("label", ["The text " + "goes on and " * 9 + end for end in ("good", "bad")], "review"),
    Case("情感", ["好", "坏"], "评论"),
)
TEXT = "It came on day {} and was {} fine."


def start(folder: Path, case: Case) -> Starter:
    data = folder / "rows.csv"
    rows = max(120, 6 * len(case.values))
    with data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([case.text, case.name])
        for n in range(rows):
            writer.writerow([TEXT.format(n, n % 7), case.values[n % len(case.values)]])
    wishes = Wishes(text=case.text, label=case.name, label_names=case.names)
    return write_starter(data, folder=folder, wishes=wishes, overwrite=True)


def aloud(folder: Path, case: Case) -> str:
    """Take the case through all that a run does with its files, and say what is asked."""
    starter = start(folder, case)
    task, rows, _ = unedited(starter)
    values = ", ".join(dict.fromkeys(map(str, case.values)))
    given = "".join(f", {value}={word}" for value, word in case.names.items())
    lines = [f"{case.name} of {case.text}: {shortened(values)}{given}"]
    for template in task.templates:
        example = render_example(task, template, rows[0])
        asked = example.messages[-1].content.replace(TEXT.format(0, 0), "...")
        said = example.target if template.role is not Role.INVERTED else "..."
        asked = asked.replace("\n\n", " / ").replace("\n", " ")
        lines.append(f"    {shortened(asked)} -> {said}")
    labels = starter.guess.labels
    assert labels is not None
    lines += [f"    ({note})" for note in labels.notes]
    lines += [f"    warning: {warning}" for warning in starter.guess.warnings]
    return "\n".join(lines)


def shortened(text: str) -> str:
    return text if len(text) <= 240 else f"{text[:200]} [...] {text[-30:]}"


def test_questions_read_aloud(tmp_path: Path, golden) -> None:
    assert len(CASES) >= 40
    text = "\n\n".join(aloud(tmp_path, case) for case in CASES) + "\n"
    golden(Path(__file__).parent / "golden" / "phrasing.txt", text)
