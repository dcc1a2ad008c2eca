"""How many requests `instil serve` answers, one after another and from many clients at once.

    python benchmarks/serving.py RUN --clients 64 --seconds 120 --out results/serving.jsonl

Each client asks again as soon as it is answered: half of them for the label of a row, in the words
of the run's own template, half of them for a longer answer of the base model. Every answer is held
against the one that the same prompt got when it was asked alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

TEXTS = (
    "The battery lasts all day and the screen is lovely.",
    "It broke after a week, and nobody answers my letters.",
    "Works as described; the case is a little loose.",
    "I returned it the same day.",
)


@dataclass
class Load:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    other: dict[int, int] = field(default_factory=lambda: {8: 0, 24: 0})
    tokens: int = 0


@contextmanager
def server(run: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "instil", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().split()[1]
        finally:
            child.terminate()


def prompts(names: list[str]) -> list[dict[str, object]]:
    """What is asked: a label of the tuned model, 24 tokens of the base model."""
    tuned, base = names[0], names[-1]
    asked = []
    for text in TEXTS:
        for model, say, tokens in (
            (tuned, f"Is this review positive or negative?\n{text}", 8),
            (base, f"Tell me more: {text}", 24),
        ):
            turns = [{"role": "user", "content": say}]
            asked.append({"model": model, "messages": turns, "max_tokens": tokens})
    return asked


def ask(session: requests.Session, address: str, body: dict[str, object]) -> tuple[str, int]:
    said = session.post(f"{address}/chat/completions", json=body, timeout=120)
    said.raise_for_status()
    found = said.json()
    return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]


def press(
    address: str,
    asked: list[dict[str, object]],
    alone: dict[int, str],
    *,
    clients: int,
    until: float,
) -> Load:
    """Let clients ask until the time is up."""
    load, lock = Load(), threading.Lock()

    def client(first: int) -> None:
        place = first
        with requests.Session() as session:
            while time.perf_counter() < until:
                number = place % len(asked)
                place += 1
                begun = time.perf_counter()
                try:
                    text, tokens = ask(session, address, asked[number])
                except requests.RequestException:
                    with lock:
                        load.lost += 1
                    continue
                with lock:
                    load.seconds.append(time.perf_counter() - begun)
                    load.tokens += tokens
                    load.other[asked[number]["max_tokens"]] += text != alone[number]

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with server(given.run, "--dtype", given.dtype) as address, requests.Session() as session:
        names = [each["id"] for each in session.get(f"{address}/models").json()["data"]]
        asked = prompts(names)
        alone = {n: ask(session, address, body)[0] for n, body in enumerate(asked)}
        for clients, seconds in ((1, given.seconds / 4), (given.clients, given.seconds)):
            begun = time.perf_counter()
            load = press(address, asked, alone, clients=clients, until=begun + seconds)
            took = time.perf_counter() - begun
            line = {
                "dtype": given.dtype,
                "clients": clients,
                "seconds": round(took, 1),
                "answered": len(load.seconds),
                "lost": load.lost,
                "labels_other_than_alone": load.other[8],
                "texts_other_than_alone": load.other[24],
                "requests_per_second": round(len(load.seconds) / took, 2),
                "tokens_per_second": round(load.tokens / took, 1),
                "median_seconds": round(statistics.median(load.seconds), 3),
                "slowest_seconds": round(max(load.seconds), 3),
            }
            print(json.dumps(line), flush=True)
            if given.out:
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
