"""`instil preview`: training examples as the model reads them, token by token.

What is shown is what training would see in its first epoch: the mix, few-shot prompts, the length
policy and the chat template included. Nothing is trained, and no weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil.config.recipe import Recipe
from instil.data.mix import mixed_examples
from instil.data.split import seeded_key
from instil.report.html import to_html
from instil.report.page import Block, Heading, Note, Report, Section, Tokens
from instil.report.sections.origin import token_runs
from instil.stages.context import Say, chat_rules, prepare_rows, silent
from instil.stages.training import mix_pools, mix_rules
from instil.types import Example, Fate, Piece, Role


@dataclass(frozen=True, slots=True)
class Preview:
    """One training example, token by token."""

    task: str
    """The task's id."""
    template: str
    """The template's id."""
    role: Role
    """What it asks."""
    row: str
    """The row's id; with `#1`, `#2` ... where each answer of a conversation is an item."""
    shots: int
    """Worked examples in the prompt."""
    pieces: tuple[Piece, ...]
    """Its tokens; empty where the length policy drops it."""
    fate: Fate
    """Kept, truncated or dropped."""
    why: str
    """The reason, where it was not kept as it is."""

    @property
    def title(self) -> str:
        """What it is, in a line."""
        shots = f", {self.shots}-shot" if self.shots else ""
        fate = "" if self.fate is Fate.KEPT else f", {self.fate}: {self.why}"
        return f"{self.task} / {self.template} ({self.role}{shots}), row {self.row}{fate}"

    @property
    def counts(self) -> tuple[int, int]:
        """Pieces that are trained on, and all of them."""
        return sum(piece.trained for piece in self.pieces), len(self.pieces)


def preview(recipe: Recipe, *, each: int, say: Say = silent) -> tuple[Preview, ...]:
    """Return examples of the first epoch, `each` a template, few-shot ones among them.

    Args:
        recipe: Whose training is looked at.
        each: Examples a template; where an epoch holds fewer of one, those.
        say: Shows one line.

    Raises:
        InstilError: Whatever would stop the run at this point.
    """
    from instil.encode.mask import encode_turns, token_view
    from instil.model.load import load_tokenizer, resolve_model

    data = prepare_rows(recipe)
    folder = resolve_model(recipe.model, say=say)
    chat = load_tokenizer(replace(folder, chat=chat_rules(recipe, data)))
    roles = {(d.task.id, t.id): t.role for d in data for t in d.templates}
    train, pools = recipe.train, mix_pools(data, {})
    rules = mix_rules(recipe.mix, per_row=train.templates_per_row, seed=recipe.seed)
    examples = tuple(mixed_examples(pools, rules, epoch=0))
    # `each` a template, and a few-shot one more a task that would show none.
    by_template: dict[tuple[str, str], list[Example]] = {}
    for example in sorted(examples, key=lambda e: seeded_key(recipe.seed, "preview", e.id)):
        by_template.setdefault((example.task, example.template), []).append(example)
    order = list(dict.fromkeys((e.task, e.template) for e in examples))
    chosen = [example for key in order for example in by_template[key][:each]]
    shown = {example.task for example in chosen if example.shots}
    few = {e.task: e for alike in by_template.values() for e in alike if e.shots}
    chosen += [example for task, example in few.items() if task not in shown]
    chosen.sort(key=lambda e: order.index((e.task, e.template)))
    return tuple(
        Preview(
            example.task,
            example.template,
            roles[example.task, example.template],
            encoded.example_id.replace(example.id, example.row),
            example.shots,
            token_view(encoded, chat),
            encoded.fate,
            encoded.why,
        )
        for example in chosen
        for encoded in encode_turns(
            example, chat, max_length=train.max_length, too_long=train.too_long
        )
    )


def preview_page(previews: Sequence[Preview], *, name: str) -> str:
    """Return the previews as one HTML page without any network access; every text is escaped."""
    blocks: dict[str, list[Block]] = {}
    for example in previews:
        trained, count = example.counts
        shown: tuple[Block, ...] = (Note("Nothing of it is left to train on."),)
        if example.pieces:
            note = Note(f"{trained} of {count} tokens are trained on.")
            shown = (note, Tokens(token_runs(example.pieces)))
        blocks.setdefault(example.task, []).extend((Heading(example.title), *shown))
    intro = "Marked tokens are trained on; the others are only read."
    sections = tuple(
        Section(f"task-{number}", task, task, intro, tuple(of_task))
        for number, (task, of_task) in enumerate(blocks.items())
    )
    report = Report(
        title=f"{name}: what training sees",
        subtitle=f"{len(previews)} training examples of the first epoch, token by token",
        verdict=(),
        key_numbers=(),
        sections=sections,
        footer="instil preview",
    )
    return to_html(report)
