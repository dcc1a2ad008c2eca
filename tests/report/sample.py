"""Made-up runs that look like real ones: a task with classes, and one with free text."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from instil.results.guard import GuardResult
from instil.results.probabilities import Bin, Calibration, Probabilities, Promise, Risk
from instil.results.prompts import Rung, TemplateScore, Turn
from instil.results.run import RunSummary
from instil.results.tasks import Arm, ClassRow, Costs, Mistake, TaskResult
from instil.results.training import TrainingSummary
from instil.types import Comparison, Estimate, Message, Piece, Role, Step, Summary

TEMPLATES = ("is_it_positive", "mood_of_the_buyer", "recommend_or_not", "one_word", "would_buy")
REVIEWS = (
    "I got this for my sister's birthday and the battery died after four days. I'd have asked "
    "for a refund, but the shop said the seal was broken.",
    "Not the worst kettle I have owned, and it does boil water.",
    "Great sound, if you like your music to come from the bottom of a well.",
    "It arrived two weeks late\nand in the wrong colour, which my daughter now prefers.",
)


def summary(
    mean: float, *, metric: str = "accuracy", n: int = 300, half: float | None = None
) -> Summary:
    half = half if half is not None else 1.96 * math.sqrt(max(mean * (1 - mean), 0.01) / n)
    higher = metric != "nats_per_token"
    return Summary(metric, mean, mean - half, mean + half, n, higher_is_better=higher)


def difference(
    a: str, b: str, *, by: float, half: float, metric: str = "accuracy", n: int = 300
) -> Comparison:
    counts = metric in ("accuracy", "exact_match")
    p = 0.0004 if abs(by) > half else 0.214
    return Comparison(
        a, b, metric, n, by, by - half, by + half, p if counts else None,
        b_only=48 if counts else 0, a_only=21 if counts else 0,
        higher_is_better=metric != "nats_per_token", smallest_detectable=0.062 if counts else 0.0,
    )  # fmt: skip


def ladder(*, metric: str, scorings: tuple[str, ...], base: float) -> tuple[Rung, ...]:
    rng = random.Random(5)
    rungs = [
        Rung(
            template,
            shots,
            scoring,
            summary(base + 0.02 * shots + rng.uniform(-0.12, 0.1), metric=metric, n=200),
            prompt_tokens=46.4 + 51.2 * shots,
            exemplar_tokens=51.2 * shots,
        )
        for shots in (0, 1, 5)
        for template in TEMPLATES
        for scoring in scorings
    ]
    best = max(rungs, key=lambda rung: rung.summary.mean)
    low = min(rungs, key=lambda rung: rung.summary.mean)
    few = replace(low, summary=summary(low.summary.mean, metric=metric, n=50), asked_all=False)
    return tuple(few if rung is low else replace(rung, best=rung is best) for rung in rungs)


def class_rows(labels: tuple[str, ...], *, base: float) -> tuple[ClassRow, ...]:
    return tuple(
        ClassRow(label, base + 0.03 * i, base - 0.02 * i, base + 0.004 * i, 100 - 7 * i)
        for i, label in enumerate(labels)
    )


def costs(name: str) -> Costs:
    return {
        "prompting": Costs(0, 0.0, 171.0, 1_380_000_000, 2_140, 302.6, 4.1),
        "tuned": Costs(4_884_480, 0.0363, 192.4, 2_710_000_000, 19_570_000, 47.2, 17.8),
        "zero_shot": Costs(0, 0.0, 24.0, 1_210_000_000, 210, 46.4, 18.2),
        "tfidf": Costs(0, 0.0, 0.61, 0, 302_000, 0.0, 9400.0, needs_model=False),
        "probe": Costs(0, 0.0, 19.4, 0, 28_400, 38.2, 31.0),
    }[name]


def class_arms(labels: tuple[str, ...]) -> tuple[Arm, ...]:
    def arm(name: str, label: str, mean: float, *, shots: int = 0, scoring: str = "raw") -> Arm:
        found = {"accuracy": summary(mean), "macro_f1": summary(mean - 0.013, metric="macro_f1")}
        template = "" if name == "tfidf" else TEMPLATES[0]
        return Arm(name, label, template, shots, scoring, found,
                   class_rows(labels, base=mean - 0.02), costs(name))  # fmt: skip

    return (
        arm("tuned", "tuned, zero-shot", 0.815),
        arm("prompting", "5-shot prompting (calibrated)", 0.726, shots=5, scoring="calibrated"),
        arm("zero_shot", "zero-shot, untouched", 0.643),
        arm("tfidf", "TF-IDF + logistic regression", 0.785, scoring="classifier"),
        arm("probe", "linear probe", 0.79, scoring="classifier"),
    )


def class_task(task: str = "amazon_reviews") -> TaskResult:
    labels = ("negative", "positive", "mixed")
    return TaskResult(
        task=task,
        kind="sentiment",
        metric="accuracy",
        rows={"train": 600, "validation": 200, "test": 300},
        groups={"train": 61, "validation": 19, "test": 28},
        removed={"exact duplicate": 4, "near duplicate": 11},
        skipped={"where is false: score between -0.5 and 0.5": 765},
        balance={
            "train": {"negative": 246, "positive": 301, "mixed": 53},
            "validation": {"negative": 83, "positive": 98, "mixed": 19},
            "test": {"negative": 121, "positive": 149, "mixed": 30},
        },
        ladder=ladder(metric="accuracy", scorings=("raw", "normalised", "calibrated"), base=0.62),
        arms=class_arms(labels),
        comparisons=(
            difference("prompting", "tuned", by=0.089, half=0.043),
            difference("zero_shot", "tuned", by=0.172, half=0.051),
            difference("tfidf", "tuned", by=0.03, half=0.041),
            difference("probe", "tuned", by=0.025, half=0.04),
        ),
        templates=tuple(
            TemplateScore(arm, template, summary(base + step * i))
            for arm, base, step in (("tuned", 0.79, 0.008), ("prompting", 0.55, 0.042))
            for i, template in enumerate(TEMPLATES)
        ),
        mistakes=tuple(mistake(i, task) for i in range(20)),
        probabilities=probabilities(),
    )


def probabilities() -> Probabilities:
    def calibration(
        arm: str, temperature: float, too_sure: float, right: float, brier: float
    ) -> Calibration:
        bins = []
        for n in range(10):
            share = right - 0.25 + 0.05 * n
            sure = min(0.99, share + too_sure)
            bins.append(Bin(sure, Estimate(share, share - 0.16, min(1.0, share + 0.13)), 30))
        low = max(0.0, too_sure - 0.04)
        error = Estimate(too_sure, low, too_sure + 0.05)
        score = Estimate(brier, brier - 0.04, brier + 0.05)
        sure = right + too_sure
        return Calibration(arm, temperature, error, 0.041, score, sure, right, tuple(bins))

    return Probabilities(
        temperature=2.31,
        rows=200,
        design=1.0,
        calibrations=(
            calibration("tuned", 1.0, 0.132, 0.815, 0.312),
            calibration("tuned", 2.31, 0.024, 0.815, 0.271),
            calibration("prompting", 1.0, 0.061, 0.726, 0.394),
        ),
        brier_change=Estimate(-0.041, -0.062, -0.019),
        curve=tuple(Risk(n / 20, 0.185 * (n / 20) ** 2) for n in range(1, 21)),
        promises=(
            Promise(
                0.1, 0.8123, 0.0961, None, Estimate(0.63, 0.57, 0.69), Estimate(0.074, 0.04, 0.12)
            ),
            Promise(0.05, None, needed=410),
            Promise(0.01, None),
        ),
    )


def mistake(i: int, task: str) -> Mistake:
    right, said = ("negative", "positive") if i % 3 else ("positive", "negative")
    prompt = f"{REVIEWS[i % 4]}\n\nIs this review positive, negative or mixed?"
    return Mistake(f"{task}/{17 + i}_3/is_it_positive", prompt, right, said, 4.2 - 0.19 * i)


def text_task(task: str = "headlines") -> TaskResult:
    def arm(name: str, label: str, rouge: float, stopped: float) -> Arm:
        found = {
            "rougeL": summary(rouge, metric="rougeL", half=0.021),
            "exact_match": summary(rouge / 9, metric="exact_match", n=150),
        }
        return Arm(name, label, TEMPLATES[0], 0, "generated", found, (), costs(name), stopped)

    return TaskResult(
        task=task,
        kind="headline",
        metric="rougeL",
        rows={"train": 500, "validation": 100, "test": 150},
        groups={"train": 500, "validation": 100, "test": 150},
        removed={},
        skipped={},
        balance={},
        ladder=ladder(metric="rougeL", scorings=("generated",), base=0.2),
        arms=(
            arm("tuned", "tuned, zero-shot", 0.318, 0.993),
            arm("prompting", "1-shot prompting", 0.327, 0.61),
        ),
        comparisons=(
            difference("prompting", "tuned", by=-0.009, half=0.02, metric="rougeL", n=150),
        ),
        templates=(),
        mistakes=(
            Mistake(f"{task}/4/title", "Write a headline: the council met on Tuesday ...",
                    "Council to vote on bridge", "Bridge vote due, says council", 0.0),
        ),
    )  # fmt: skip


def guards() -> tuple[GuardResult, ...]:
    def guard(
        task: str, kind: str, metric: str, before: float, by: float, half: float
    ) -> GuardResult:
        own = half if metric == "nats_per_token" else None
        return GuardResult(
            task,
            kind,
            summary(before, metric=metric, n=200, half=own),
            summary(before + by, metric=metric, n=200, half=own),
            difference("before", "after", by=by, half=half, metric=metric, n=200),
        )

    return (
        guard("bbc_topic", "topic", "accuracy", 0.61, -0.015, 0.034),
        guard("finance_entities", "entities", "token_f1", 0.284, -0.061, 0.029),
        guard("trivia", "question answering", "exact_match", 0.095, 0.005, 0.021),
        guard("bbc_headline", "headline", "rougeL", 0.173, 0.024, 0.019),
        guard("general text", "cross-entropy", "nats_per_token", 3.982, 0.047, 0.012),
    )


def turns() -> tuple[Turn, ...]:
    user = Message("user", f"{REVIEWS[0]}\n\nIs this review positive, negative or mixed?")
    system = Message("system", "You read reviews closely.")
    wording = Message("user", "{{ text }}\n\nIs this review positive, negative or mixed?")
    inverted = Message("user", "Write a short, negative review of something you bought.")
    rating = Message("user", f"From -4 (awful) to 4 (excellent), rate:\n{REVIEWS[0]}")
    return (
        Turn("is_it_positive", Role.ANSWER, (system, user), "negative", (system, wording)),
        Turn("write_one", Role.INVERTED, (inverted,), REVIEWS[0], trained=False),
        Turn("rate_it", Role.AUXILIARY, (rating,), "-2"),
    )


def token_view() -> tuple[Piece, ...]:
    head = ("<|im_start|>", "user", "\n", "Not", " the", " worst", " kett", "le", " I", " have")
    tail = (" owned", ".", "\n", "Positive", " or", " negative", "?", "<|im_end|>", "\n",
            "<|im_start|>", "assistant", "\n")  # fmt: skip
    prompt = tuple(Piece(text, trained=False) for text in head + tail)
    return (*prompt, Piece("positive", trained=True), Piece("<|im_end|>", trained=True))


def steps(n: int = 80) -> tuple[Step, ...]:
    rng = random.Random(3)
    found = []
    for step in range(1, n + 1):
        loss = 0.35 + 1.9 * math.exp(-step / 14) + rng.gauss(0, 0.07)
        checked = step % 10 == 0
        found.append(
            Step(
                step, step / 40, loss, 5e-4 * min(1, step / 8), 1.2, 310, 2048, 2.3, 2_710_000_000,
                0.42 + 1.1 * math.exp(-step / 17) + max(0, step - 60) * 0.002 if checked else None,
                0.8 - 0.35 * math.exp(-step / 15) - max(0, step - 60) * 0.001 if checked else None,
            )
        )  # fmt: skip
    return tuple(found)


def run(*tasks: TaskResult) -> RunSummary:
    return RunSummary(
        name="quickstart",
        model="smollm2-135m-instruct",
        model_parameters=134_515_008,
        model_bytes=269_060_552,
        model_licence="Apache-2.0",
        tasks=tasks or (class_task(),),
        training=TrainingSummary(
            "lora", 80, 60, 2.0, True, 5e-4, 192.4, 884.2, 24_812, {"kept": 598, "truncated": 2},
            4_884_480, 0.0363, 2_710_000_000, "bfloat16",
        ),
        forgetting=guards(),
        verdict=(
            "Tuning beats the best prompting on test: 81.5 % against 72.6 %, a difference of "
            "+8.9 points (+4.6 to +13.2).",
            "It lost 6.1 points on finance_entities; on the other guard tasks no loss is clear.",
            "A prediction takes 47 tokens rather than 303; 19.6 MB are stored beside the model.",
        ),
        turns=turns(),
        token_view=token_view(),
        stage_seconds={"fetch": 3.1, "ladder": 171.0, "train": 192.4, "test": 61.2, "guard": 98.7},
        processor_seconds={
            "fetch": 1.2, "ladder": 301.0, "train": 340.4, "test": 101.2, "guard": 150.7,
        },
        forecast_seconds={"ladder": 160.0, "train": 210.0, "test": 58.0, "guard": 90.0},
        test_opened="2025-11-23T14:05:09+00:00",
        seed=13,
    )  # fmt: skip


def manifest() -> dict[str, object]:
    return {
        "format_version": 1,
        "begun": "2025-11-23T13:54:40+00:00",
        "versions": {"instil": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "python": "3.11.2",
        "machine": {
            "system": "Linux",
            "processor": "x86_64",
            "cores": 2,
            "memory_bytes": 6_442_450_944,
        },
        "git_revision": "3f9a1c2b7d10",
        "seed": 13,
        "data": {
            "amazon_reviews": {
                "rows": "a49ab1ce9a2f5e0d3b49e1c6f2087ab3a49e1c6f2087ab3a49e1c6f2087ab3aa",
                "templates": "5d97c37f0b1ce9a2f5e0d3b49e1c6f2087ab3a49e1c6f2087ab3a49e1c6f2087",
                "licence": "MIT",
                "source": "pypi:vaderSentiment==0.5/reviews.txt",
            }
        },
        "model": {"name": "smollm2-135m-instruct", "licence": "Apache-2.0", "bytes": 269_060_552},
        "guard": {"watched": ["bbc_topic", "trivia"], "left_out_as_related": []},
        "stage_seconds": {"train": 192.4},
    }
