"""Names of arms, and of what stands beside tasks in a table."""

from __future__ import annotations

MEAN_SCORE = "mean_score"
"""Stands for the metric of an average over tasks that are judged by different ones."""

TUNED, PROMPTING, ZERO_SHOT, TFIDF, PROBE = "tuned", "prompting", "zero_shot", "tfidf", "probe"
"""Names of arms."""

TUNED_PROMPTED = "tuned_prompted"
"""The arm of the tuned model asked by the best prompt, where the training asked so too."""

CLASSIFIERS = {TFIDF: "TF-IDF with logistic regression", PROBE: "the linear probe"}
"""Arms without prompts, as sentences call them."""

TEXT = "general text"
"""Stands for the task of a guard that reads texts."""

LORA, REPLAY, PART = "LoRA", "LoRA + replay", "interpolation"
"""Names of the ways that `method: auto` tries; the last goes with what it is a part of."""
