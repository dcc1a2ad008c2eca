"""Is a search for the prompt worth its calls? Against the ladder alone, and DSPy's optimisers.

    python benchmarks/prompts.py search --extent quick --seeds 0 1
    python benchmarks/prompts.py peer --optimiser mipro --seeds 0 1 --address URL --model NAME
    python benchmarks/prompts.py table

`search` climbs the ladder, searches on, and asks the best of each on test; nothing is trained.
`peer` hands the same rows to DSPy (in an environment of its own, with `dspy` beside instil), which
asks the same model behind an OpenAI-compatible address: `instil serve RUN`, which serves the base
model by its name. Its program is one sentence and a field, the field being what the task's first
template says, so that both know the same; a plain adapter writes both as text, since models this
small do not keep to DSPy's own formats. Its calls are counted. Every answer of a test row is kept,
so that `table` pairs the two. What is finished is kept in the .jsonl file and not done again.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from runs import add_line, begun, read_lines

if TYPE_CHECKING:
    from instil.data.prepare import TaskData
    from instil.stages.context import RunContext

FILE = Path(__file__).parent / "results" / "prompts.jsonl"
TASKS = ("amazon_reviews", "sarcasm", "social_iqa")
RECIPE = """
model: smollm2-135m-instruct
seed: {seed}
tasks: [{{use: {task}, train: 200}}]
validation: {validation}
test: {test}
baselines: {{shots: [0, 1, 5], search: {extent}}}
forgetting: {{tasks: none}}
train: {{max_length: 1024}}
"""
SENTENCE = "Answer the question with one of its answers, and with nothing else."
"""The instruction that DSPy begins with."""


@contextmanager
def prepared(
    task: str, *, seed: int, extent: str, rows: argparse.Namespace
) -> Iterator[RunContext]:
    """Split a task's rows, as `instil run` does."""
    from instil.stages.context import note_chat

    text = RECIPE.format(
        seed=seed, task=task, extent=extent, validation=rows.validation, test=rows.test
    )
    with begun(text) as context:
        note_chat(context)
        yield context


def search(context: RunContext) -> dict[str, Any]:
    """Climb the ladder, search on, and ask the best of both on test."""
    from instil.compare.contest import ask
    from instil.compare.halving import planned
    from instil.compare.ladder import best_rung, prompting
    from instil.compare.pairing import by_row
    from instil.stages.ladder import climb_ladders, ladder_templates

    (data,), base, seed = context.data, context.load_base(), context.recipe.seed
    ladder = climb_ladders(context)[data.task.id]
    searched = ladder.search
    assert searched is not None
    rung = best_rung(ladder.rungs)
    ways = {
        "ladder": (
            prompting(data, template=rung.template, shots=rung.shots, seed=seed),
            rung.scoring,
        ),
        "search": ladder.bar(base, data, data.test, seed=seed, longest=context.longest),
    }
    asked = {
        name: ask(base, data, name=name, way=way, scoring=rule, rows=data.test)
        for name, (way, rule) in ways.items()
    }
    wanted = context.recipe.baselines
    kinds = wanted.shots * len(ladder_templates(wanted, data))
    climbed = sum(ways * more for ways, more in planned(kinds, rows=len(data.validation)))
    shown = searched.demonstrations
    return {
        "prompts": {"ladder": climbed, "search": climbed + searched.prompts},
        "seconds": {"ladder": ladder.seconds, "search": ladder.seconds + searched.seconds},
        "validation": {"ladder": rung.summary.mean, "search": searched.summary.mean},
        "better": searched.better,
        "chosen": [searched.template.id, shown and [shown.draw, shown.shots], searched.scoring],
        "tried": len(searched.ways),
        "test": {
            name: by_row(each.marked.values, each.marked.examples) for name, each in asked.items()
        },
        "groups": groups(data),
    }


def peer(context: RunContext, args: argparse.Namespace) -> dict[str, Any]:
    """Let one of DSPy's optimisers look for the prompt, and ask it on test."""
    import dspy

    from instil.data.build import render_example

    (data,), seed = context.data, context.recipe.seed
    template = data.answering[0]

    def put(row: Any) -> Any:
        example = render_example(data.task, template, row)
        said = "\n".join(turn.content for turn in example.messages)
        made = dspy.Example(
            request=said, answer=example.answer.shown, choices=example.choices, id=row.id
        )
        return made.with_inputs("request")

    calls: list[str] = []

    class Counted(dspy.LM):  # type: ignore[misc]
        """Counts its calls, but for prompts that it has in its cache."""

        def forward(self, *given: Any, **named: Any) -> Any:
            made = super().forward(*given, **named)
            if not getattr(made, "cache_hit", False):
                calls.append(self.model)
            return made

    class Plain(dspy.ChatAdapter):  # type: ignore[misc]
        """One turn a field, without marks: what a small model can answer."""

        def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
            if "answer" not in signature.output_fields:
                return super().format(signature, demos, inputs)
            turns = [{"role": "system", "content": signature.instructions}]
            for demo in demos:
                turns.append({"role": "user", "content": demo["request"]})
                turns.append({"role": "assistant", "content": demo["answer"]})
            return [*turns, {"role": "user", "content": inputs["request"]}]

        def parse(self, signature: Any, completion: str) -> Any:
            if list(signature.output_fields) == ["answer"]:
                return {"answer": completion.strip()}
            try:
                return super().parse(signature, completion)
            except Exception:  # an instruction that the model wrote in a form of its own
                return dict.fromkeys(signature.output_fields, completion.strip())

    def metric(example: Any, made: Any, *_: Any) -> float:
        return float(named(getattr(made, "answer", ""), example.choices) == example.answer)

    class Asked(dspy.Signature):  # type: ignore[misc]
        request: str = dspy.InputField()
        answer: str = dspy.OutputField()

    served = partial(Counted, f"openai/{args.model}", api_base=args.address, api_key="none")
    model = served(temperature=0.0, max_tokens=24, cache=True)
    writer = served(temperature=1.0, max_tokens=80, cache=False)
    dspy.configure(lm=model, adapter=Plain())
    program = dspy.Predict(Asked.with_instructions(SENTENCE))
    train, validation = [*map(put, data.train)], [*map(put, data.validation)]
    ask = dspy.Evaluate(devset=validation, metric=metric, num_threads=8)
    began = time.perf_counter()
    before = ask(program).score / 100
    if args.optimiser == "mipro":
        optimiser = dspy.MIPROv2(
            metric=metric,
            prompt_model=writer,
            auto=None,
            num_candidates=6,
            max_bootstrapped_demos=3,
            max_labeled_demos=5,
            seed=seed,
            num_threads=8,
        )
        better = optimiser.compile(
            program,
            trainset=train,
            valset=validation,
            num_trials=args.trials,
            minibatch=False,
            seed=seed,
        )
    else:

        def told(example: Any, made: Any, *_: Any) -> Any:
            score = metric(example, made)
            note = f"The right answer is {example.answer!r}, and it was {made.answer!r}."
            return dspy.Prediction(score=score, feedback=note)

        optimiser = dspy.GEPA(
            metric=told,
            max_metric_calls=args.trials * len(validation),
            reflection_lm=writer,
            num_threads=8,
            seed=seed,
        )
        better = optimiser.compile(program, trainset=train, valset=validation)
    seconds, count = time.perf_counter() - began, len(calls)
    chosen = ask(better).score / 100
    tested = dspy.Evaluate(devset=[*map(put, data.test)], metric=metric, num_threads=8)(better)
    values = {f"{data.task.id}/{example.id}": score for example, _, score in tested.results}
    return {
        "prompts": {args.optimiser: count},
        "seconds": {args.optimiser: seconds},
        "validation": {"begun with": before, args.optimiser: chosen},
        "chosen": [better.signature.instructions, len(better.demos)],
        "test": {args.optimiser: values},
        "groups": groups(data),
    }


def groups(data: TaskData) -> dict[str, str]:
    """Key the test rows' groups as scores are keyed."""
    return {f"{data.task.id}/{row.id}": row.group for row in data.test}


def named(text: str, choices: Sequence[str]) -> str:
    """Return the choice that an answer names first; empty: none.

    >>> named("Positive. I like it", ["negative", "positive"])
    'positive'
    >>> named("it is positive, not negative", ["negative", "positive"])
    'positive'
    """
    found = {
        choice: match.start()
        for choice in choices
        if (match := re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text, re.IGNORECASE))
    }
    return min(found, key=lambda choice: (found[choice], -len(choice)), default="")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return all figures, paired with what the ladder and the search got on the same rows."""
    from instil.compare.pairing import compare

    out = [
        "| task, seed | way | prompts | seconds | validation | test | - ladder | - quick search |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((line["task"], line["seed"]) for line in lines):
        mine = [line for line in lines if (line["task"], line["seed"]) == key]
        tests = {
            f"{name} {line['what']}" if name == "search" else name: (line, name)
            for line in mine
            for name in line["test"]
        }
        for title, (line, name) in tests.items():
            values = line["test"][name]
            gaps = []
            for other in ("ladder", "search quick"):
                if other == title or other not in tests:
                    gaps.append("")
                    continue
                against, key_of = tests[other]
                gap = compare(
                    against["test"][key_of],
                    values,
                    a=other,
                    b=name,
                    metric="accuracy",
                    groups=line["groups"],
                )
                ends = 100 * gap.low, 100 * gap.high
                gaps.append(f"{100 * gap.difference:+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f})")
            out.append(
                f"| {key[0]}, {key[1]} | {title} | {line['prompts'][name]} "
                f"| {line['seconds'][name]:.0f} | {100 * line['validation'][name]:.1f} "
                f"| {100 * fmean(values.values()):.1f} | {' | '.join(gaps)} |"
            )
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("search", "peer", "table"))
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--extent", choices=("quick", "full"), default="quick")
    parser.add_argument("--optimiser", choices=("mipro", "gepa"), default="mipro")
    parser.add_argument("--trials", type=int, default=16, help="rounds of all validation rows")
    parser.add_argument("--address", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--validation", type=int, default=60)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--file", type=Path, default=FILE)
    given = parser.parse_args()
    lines = read_lines(given.file)
    what = given.extent if given.what == "search" else given.optimiser
    done = {(line["task"], line["seed"], line["what"]) for line in lines}
    for seed in given.seeds if given.what != "table" else ():
        for task in given.tasks:
            if (task, seed, what) in done:
                continue
            extent = given.extent if given.what == "search" else "off"
            with prepared(task, seed=seed, extent=extent, rows=given) as context:
                found = search(context) if given.what == "search" else peer(context, given)
            line = {"task": task, "seed": seed, "what": what, **found}
            lines.append(add_line(given.file, line))
    print(table(lines))


if __name__ == "__main__":
    main()
