"""How far the model moved, and the interpolation weight of the exported model, in words."""

from dataclasses import replace

from instil.config.sections import Keep
from instil.report.build import build_report
from instil.report.card import model_card
from instil.report.html import to_html
from instil.report.sections.keeping import keeping_lines
from instil.results.keeping import Interpolation, Means, Moved, TermMean, Tried
from instil.train.terms import terms_of
from instil.types import Summary

NEAR = Summary("nats_per_token", 0.123, 0.103, 0.143, 150, higher_is_better=False)


def page(sample, summary) -> str:
    text = to_html(build_report(summary, steps=sample.steps(), manifest=sample.manifest()))
    return text.replace("\u00a0", " ")


def test_one_line_says_how_far_it_moved(sample):
    one = replace(sample.run(), moved=Moved(NEAR, {"amazon_reviews": NEAR}))
    (line,) = keeping_lines(one)
    assert line.startswith(
        "Moved 0.123 nats per token (0.103 to 0.143) from the base model on the new task's"
    )
    assert line in page(sample, one).replace("&#39;", "'")
    two = replace(one, moved=Moved(NEAR, {"amazon_reviews": NEAR, "<b>": NEAR}))
    assert "the new tasks' inputs (amazon_reviews" in keeping_lines(two)[0]
    assert "<b>" not in page(sample, two)


def test_nothing_is_said_where_nothing_was_measured(sample):
    assert keeping_lines(sample.run()) == []


def test_what_was_tried_is_shown_and_what_was_chosen_is_marked(sample):
    found = Interpolation(
        0.6,
        "the least forgotten within half a point",
        (
            Tried(0.0, 0.61, 1.9, 0.0, 0.0),
            Tried(0.6, 0.80, 0.51, -0.4, 0.013),
            Tried(1.0, 0.81, 0.5, -3.2, 0.211),
        ),
        {"trivia": 50, "general text": 24},
    )
    summary = replace(sample.run(), interpolation=found)
    (line,) = keeping_lines(summary)
    assert "60\u00a0% of the way" in line
    text = page(sample, summary)
    for shown in ("How far to go", "trivia 50, general text 24", "\u22123.2", "+0.211", "chosen"):
        assert shown in text, shown
    assert (
        "all of the tuning"
        in keeping_lines(replace(summary, interpolation=replace(found, chosen=1.0)))[0]
    )


def test_the_model_card_says_the_same(sample):
    found = Interpolation(0.5, "as the recipe says")
    one = replace(sample.run(), moved=Moved(NEAR, {"t": NEAR}), interpolation=found)
    card = model_card(one, manifest=sample.manifest())
    assert "\n\nMoved 0.123 nats per token" in card
    assert "\n\nExported: 50 % of the way" in card


def test_a_second_look_is_marked(sample):
    text = page(sample, replace(sample.run(), looks=2))
    assert "scored once" not in text
    assert text.count("ook number 2") >= 2


def test_what_was_done_to_keep_what_it_knew_is_said(sample):
    run, keep = sample.run(), Keep(kl=0.1, entropy_weighted=True)
    means = Means(
        replay_share=0.05,
        replay_of="own",
        replay_loss=3.4,
        terms=tuple(
            TermMean(term.name, term.sentence(mean), mean)
            for term, mean in zip(terms_of(keep), (0.0123, 0.5), strict=True)
        ),
    )
    kept = replace(run, training=replace(run.training, means=means))
    lines = [line.replace("\u00a0", " ") for line in keeping_lines(kept)[:3]]
    assert lines == [
        "Replayed: texts that the base model wrote by itself, 5 % of the examples; 3.400 "
        "nats per token on average.",
        "Held to the base model where tokens of the prompts are predicted: forward KL with a "
        "weight of 0.1; 0.0123 nats on average.",
        "Each token's loss was weighted by how unsure the model was there, 0.500 on average.",
    ]
    assert all(line in page(sample, kept).replace("&#39;", "'") for line in lines)
    assert keeping_lines(run) == keeping_lines(kept)[3:]
