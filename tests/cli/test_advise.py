"""`instil advise`: what it begins, what it prints, and the command that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.results.advice import Advice, Way
from instil.results.names import PROBE, PROMPTING, TUNED
from instil.types import Estimate, Summary


def way(name: str, label: str, share: float, *, risk: float, tokens: float) -> Way:
    summary = Summary("accuracy", share, share - 0.1, share + 0.1, scored=60)
    return Way(name, label, summary, Estimate(share, share - 0.1, share + 0.1), risk, tokens)


ADVICE = Advice(
    "amazon_reviews",
    "accuracy",
    (
        way(PROBE, "linear probe", 0.7, risk=0.9, tokens=40),
        way(PROMPTING, "5-shot prompting", 0.6, risk=1.0, tokens=400),
        way(TUNED, "tuned (lora)", 0.9, risk=0.03, tokens=50),
    ),
    chosen=2,
    rows=60,
    tried=0.25,
    training_tokens=700_000,
)


@pytest.fixture
def advised(library, monkeypatch: pytest.MonkeyPatch):
    import instil.pipeline

    advise = library.function("advise_recipe")
    monkeypatch.setattr(instil.pipeline, "advise_recipe", advise, raising=False)
    library.answers["advise_recipe"] = (ADVICE,)
    return library


def test_it_says_what_to_do_and_how_the_run_goes_on(
    instil_command, advised, recipe_file: Path
) -> None:
    result = instil_command("advise", recipe_file, "--set", "test=30", "--folder", "my run")
    assert result.exit_code == 0, result.output
    ((_, (recipe,), options),) = advised.calls
    assert recipe.test == 30
    assert options["folder"] == Path("my run")
    assert options["resume"] is False
    shown = " ".join(result.stdout.replace("\u00a0", " ").split())
    for text in (
        "amazon_reviews: tune: tuned (lora).",
        "is 3.0 %, by 60 validation rows",
        "The short try took 25.0 % of the training",
        "paid back after 2,000 answers",
        "instil run --resume 'my run'",
    ):
        assert text in shown


def test_of_a_file_of_rows_it_writes_the_recipe_first(instil_command, advised) -> None:
    rows = "\n".join(f"it is {w} number {n},{w}" for n in range(40) for w in ("good", "bad"))
    Path("mugs.csv").write_text(f"text,label\n{rows}\n", encoding="utf-8")
    result = instil_command("advise", "mugs.csv")
    assert result.exit_code == 0, result.output
    ((_, (recipe,), options),) = advised.calls
    assert Path("mugs.recipe.yaml").exists()
    assert [Path(use.use).name for use in recipe.tasks] == ["mugs.task.yaml"]
    assert options["folder"] == Path("runs/mugs")
    Path("odd.csv").write_text("text,label\n" + "it is good,\n" * 40, encoding="utf-8")
    unsure = instil_command("advise", "odd.csv")
    assert unsure.exit_code == 2
    assert "(of instil init odd.csv, then instil advise odd.recipe.yaml)" in unsure.stderr
    # A second time the recipe, which may have been edited, is not written over.
    again = instil_command("advise", "mugs.csv")
    assert again.exit_code == 2
    assert "instil advise mugs.recipe.yaml" in again.stderr
