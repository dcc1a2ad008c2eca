"""`instil serve`, asked by OpenAI's own client and by such as would do harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import openai
import pytest
import requests
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from instil.errors import OutOfMemoryError, Problem, RunError
from instil.evaluate.generate import generate
from instil.ship.predict import predict_rows
from instil.ship.server import app as server_app
from instil.ship.server import engine as engine_module
from instil.ship.server.app import Limits, Service, make_app
from instil.ship.server.engine import Engine, Job, Piece, Request, Speech
from instil.ship.server.schema import ChatAsked
from instil.ship.server.serve import make_service, require_token
from instil.types import Example, Message

pytestmark = pytest.mark.slow  # many whole runs


ASKED = "Is it positive or negative?\nphone 1: it is good and great"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(done_lora: Path) -> Iterator[Service]:
    made = make_service(done_lora)
    yield made
    made.engine.close()


@pytest.fixture
def http(service: Service) -> TestClient:
    return TestClient(make_app(service), base_url="http://localhost")


@pytest.fixture
def client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0
    )


def ask(client: openai.OpenAI, text: str = ASKED, **how):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        **{"model": "", "messages": messages, "max_tokens": 12, **how}
    )


def expected(service: Service, model: str, text: str = ASKED, tokens: int = 12) -> str:
    """The same by what evaluation generates with."""
    from instil.model.adapter import adapter_off

    loaded = service.engine.models[model]
    example = Example("x", "", "", "x", "", (Message("user", text),), "")

    def made() -> str:
        if model == service.tuned:
            return generate(loaded, [example], max_new_tokens=tokens)[0].text
        with adapter_off(loaded.model):
            return generate(loaded, [example], max_new_tokens=tokens)[0].text

    return service.engine.call(made).result()


def test_both_models_answer_as_they_were_judged(service, client):
    names = [each.id for each in client.models.list()]
    assert names == list(service.engine.models)
    assert client.models.retrieve(names[0]).owned_by == "instil"
    answers = {name: ask(client, model=name).choices[0].message.content for name in names}
    assert answers == {name: expected(service, name) for name in names}
    assert len(set(answers.values())) == 2


def test_a_stream_is_the_whole_answer_in_pieces(client):
    whole = ask(client)
    events = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage == whole.usage
    assert events[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert events[0].choices[0].delta.role == "assistant"


def test_stop_texts_end_an_answer_before_them(service, client):
    whole = ask(client).choices[0].message.content
    assert len(whole) > 4
    stop = whole[3:5]
    for stream in (False, True):
        found = ask(client, stop=[stop], stream=stream)
        if stream:
            events = [e.choices[0] for e in found]
            text = "".join(e.delta.content or "" for e in events)
            reason = events[-1].finish_reason
        else:
            text, reason = found.choices[0].message.content, found.choices[0].finish_reason
        assert text == whole[: whole.index(stop)].rstrip()
        assert reason == "stop"


def test_probabilities_of_tokens(client):
    found = ask(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(found) == ask(client).usage.completion_tokens
    for token in found:
        assert token.logprob == max(each.logprob for each in token.top_logprobs)
        assert len(token.top_logprobs) == 3
    assert ask(client).choices[0].logprobs is None
    text = client.completions.create(model="", prompt="it is good", max_tokens=3, logprobs=2)
    assert len(text.choices[0].logprobs.tokens) == text.usage.completion_tokens


def test_draws_are_those_of_the_seed(client):
    def drawn(seed: int) -> str:
        return ask(client, temperature=1.5, seed=seed, max_tokens=20).choices[0].message.content

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1
    narrow = ask(client, temperature=1.5, top_p=1e-6).choices[0].message.content
    assert narrow == ask(client).choices[0].message.content


def test_a_text_is_continued_as_it_stands(service, client):
    loaded = service.engine.models[service.tuned]
    ids = loaded.chat.tokenizer("it is good")["input_ids"]
    by_text = client.completions.create(model="", prompt="it is good", max_tokens=5)
    by_ids = client.completions.create(model="", prompt=ids, max_tokens=5)
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert by_text.usage.prompt_tokens == len(ids)


def test_rows_are_labelled_as_predict_labels_them(service, http, done_lora):
    loaded = service.engine.models[service.tuned]
    texts = ["phone 1: it is good and great", "book 2: it is bad and sad"]
    for text, wanted in zip(texts, predict_rows(done_lora, texts, loaded=loaded), strict=True):
        for body in ({"text": text}, {"row": {"text": text}}):
            found = http.post("/v1/classify", json=body).json()
            assert found["label"] == wanted["prediction"]
            assert found["probabilities"] == wanted["probabilities"]
            assert not found["abstained"]
    sure = http.post("/v1/classify", json={"text": texts[0]}).json()["probability"]
    unsure = http.post("/v1/classify", json={"text": texts[0], "threshold": 1.0}).json()
    assert unsure["abstained"] == (sure < 1.0)
    # The run's 24 validation rows are too few for 5 %.
    refused = http.post("/v1/classify", json={"text": texts[0], "max_error": 0.05})
    assert refused.status_code == 400
    assert "no threshold" in refused.json()["error"]["message"]
    asked = {"text": texts[0], "max_error": 0.9}
    (wanted,) = predict_rows(done_lora, texts[:1], max_error=0.9, loaded=loaded)
    found = http.post("/v1/classify", json=asked).json()
    assert found["abstained"] == bool(wanted["unanswered"])
    assert found["label"] == (wanted["prediction"] or None)
    assert http.post("/v1/classify", json={**asked, "max_error": 0}).status_code == 400
    assert http.post("/v1/classify", json={"row": {"wrong": 1}}).status_code == 400
    assert http.post("/v1/classify", json={}).status_code == 400
    assert http.post("/v1/classify", json={"text": " "}).status_code == 400


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError(Problem("memory ran out"))])
def test_a_row_that_memory_does_not_hold_is_told_so(service, http, monkeypatch, error):
    def runs_out(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(server_app, "predict_rows", runs_out)
    answer = http.post("/v1/classify", json={"text": "phone 1: it is good"})
    assert answer.status_code == 503
    assert "there is not enough memory" in answer.json()["error"]["message"]


BAD = {
    "no such model": (openai.NotFoundError, {"model": "nobody"}),
    "too long": (openai.BadRequestError, {"max_tokens": 100_000}),
    "too hot": (openai.BadRequestError, {"temperature": 9}),
    "no seed": (openai.BadRequestError, {"seed": 2**63}),
    "several answers": (openai.BadRequestError, {"n": 3}),
    "penalties": (openai.BadRequestError, {"frequency_penalty": 1.0}),
    "functions": (openai.BadRequestError, {"tools": [{"type": "function"}]}),
    "a picture": (
        openai.BadRequestError,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    ),
    "nothing": (openai.BadRequestError, {"messages": []}),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_have_openais_shape(name: str, client):
    kind, how = BAD[name]
    with pytest.raises(kind) as caught:
        ask(client, **how)
    assert caught.value.body["message"]
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert ask(client).choices, "the next one is answered"


def test_what_defaults_say_is_no_error(client):
    assert ask(client, n=1, presence_penalty=0, tools=[], response_format={"type": "text"})


def test_bodies_that_are_none(http, service):
    post = http.post
    assert post("/v1/chat/completions", content=b"{}").status_code == 415
    for content in (b"", b"{", b"\xff\xfe", b"[]", b'{"messages": "x"}', b"9" * 500):
        assert post("/v1/chat/completions", content=content, headers=JSON).status_code == 400
    nested = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert post("/v1/chat/completions", content=nested, headers=JSON).status_code == 400
    small = TestClient(
        make_app(replace(service, limits=Limits(body=100))), base_url="http://localhost"
    )
    big = small.post("/v1/chat/completions", content=b" " * 200, headers=JSON)
    assert big.status_code == 413
    assert http.get("/v1/nothing").json()["error"]["message"].startswith("there is no")
    assert http.get("/v1/chat/completions").status_code == 405


def test_who_is_let_in(service):
    app = make_app(service)
    assert TestClient(app, base_url="http://127.0.0.1:80").get("/health").status_code == 200
    for host in ("localhost", "localhost:8000", "[::1]", "[::1]:8000"):
        found = TestClient(app).get("/health", headers={"Host": host})
        assert found.status_code == 200, host
    assert TestClient(app, base_url="http://evil.example").get("/v1/models").status_code == 403
    guarded = TestClient(make_app(service, token="long enough a token"), base_url="http://any")
    assert guarded.get("/v1/models").status_code == 401
    for sent, status in (("long enough a token", 200), ("wrong", 401), ("", 401)):
        headers = {"Authorization": f"Bearer {sent}"}
        assert guarded.get("/v1/models", headers=headers).status_code == status
    require_token("127.0.0.1", "")
    require_token("::1", "")
    for host, token in (("0.0.0.0", ""), ("192.0.2.1", "short"), ("example.org", "")):
        with pytest.raises(RunError, match="no token"):
            require_token(host, token)


def test_more_requests_than_the_queue_holds_are_turned_away(service):
    full = replace(service, limits=Limits(queue=0))
    http = TestClient(make_app(full), base_url="http://localhost")
    body = {"messages": [{"role": "user", "content": "x"}]}
    found = http.post("/v1/chat/completions", json=body)
    assert found.status_code == 429
    assert found.headers["Retry-After"]


# ---- the engine


def collected(engine: Engine, requests_: list[Request]) -> list[str]:
    """Submit all at once, and wait."""
    pieces: list[list[Piece]] = [[] for _ in requests_]
    ended = threading.Semaphore(0)

    def putter(place: int):
        def put(piece: Piece) -> None:
            pieces[place].append(piece)
            if piece.finish:
                ended.release()

        return put

    for place, request in enumerate(requests_):
        engine.submit(Job(request, putter(place)))
    for _ in requests_:
        assert ended.acquire(timeout=60)
    return ["".join(piece.text for piece in each) for each in pieces]


def mixed(service: Service) -> list[Request]:
    """64 requests of both models, of several lengths."""
    found = []
    for n in range(64):
        name = list(service.engine.models)[n % 2]
        chat = service.engine.models[name].chat
        prompt = chat.prompt([Message("user", f"{ASKED} {'and good ' * (n % 5)}{n}")])
        found.append(Request(tuple(prompt), 3 + n % 9, name))
    return found


def test_sixty_four_at_once_say_what_each_says_alone(service):
    asked = mixed(service)
    alone = [collected(service.engine, [each])[0] for each in asked]
    assert collected(service.engine, asked) == alone
    assert len(set(alone)) > 5


def test_a_model_without_instils_memory_is_served_by_transformers(service):
    loaded = service.engine.models[service.tuned]
    asked = [each for each in mixed(service)[:12] if each.model == service.tuned]
    middle = sorted(len(each.prompt) + each.max_tokens for each in asked)[len(asked) // 2]
    for build in (
        replace(loaded.build, own_memory=False),
        replace(loaded.build, longest=middle),  # proved for some of the requests alone
    ):
        engine = Engine({service.tuned: replace(loaded, build=build)})
        assert collected(engine, asked) == collected(service.engine, asked)
        engine.close()


def test_whoever_goes_away_frees_the_place(service):
    loaded = service.engine.models[service.tuned]
    prompt = tuple(loaded.chat.prompt([Message("user", ASKED)]))
    first = threading.Event()
    job = Job(Request(prompt, 400, service.tuned, temperature=2.0), lambda piece: first.set())
    service.engine.submit(job)
    assert first.wait(timeout=30)
    job.gone.set()
    until = time.monotonic() + 20
    while service.engine.load and time.monotonic() < until:
        time.sleep(0.01)
    assert service.engine.load == 0


def test_what_is_no_number_ends_its_own_request_alone(service, monkeypatch):
    loaded = service.engine.models[service.tuned]
    prompt = tuple(loaded.chat.prompt([Message("user", ASKED)]))
    asked = [Request(prompt, 3, service.tuned, temperature=t, seed=1) for t in (0.0, 1.0)]
    drawn = torch.multinomial
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: drawn(a[0] * float("nan"), *a[1:]))
    good, bad = collected(service.engine, asked)
    assert bad == "RuntimeError"
    monkeypatch.undo()
    assert good == collected(service.engine, asked[:1])[0]


def test_waves_hold_no_more_tokens_than_memory_is_meant_for(service, monkeypatch):
    monkeypatch.setattr(engine_module, "TOKENS", 100)
    asked = mixed(service)[:20]
    found = collected(service.engine, asked)
    monkeypatch.undo()
    assert found == collected(service.engine, asked)


def test_an_error_ends_its_own_requests_alone(service):
    loaded = service.engine.models[service.tuned]
    good = tuple(loaded.chat.prompt([Message("user", ASKED)]))
    bad = Request((10**9,), 3, service.tuned)
    assert collected(service.engine, [bad]) == ["IndexError"]
    assert collected(service.engine, [Request(good, 3, service.tuned)])[0]


@pytest.mark.parametrize("stripped", [True, False])
def test_speech_holds_half_characters_and_half_stops_back(stripped, tiny_chat):
    text = "  größer 漢字 \U0001f642 and a bed at the end  "
    ids = tiny_chat.tokenizer(text)["input_ids"]
    speech = Speech(tiny_chat, stops=["bad", "the ends"], stripped=stripped)
    said = [speech.add(token) for token in ids]
    assert "\ufffd" not in "".join(said)
    assert "".join(said) + speech.end() == (text.strip() if stripped else text)
    speech = Speech(tiny_chat, stops=["at t", "bed at"], stripped=stripped)
    said = []
    for token in ids:
        said.append(speech.add(token))
        if speech.stopped:
            break
    whole = text[: text.index("bed")]
    assert "".join(said) == (whole.strip() if stripped else whole)


@given(
    text=st.text(st.sampled_from("ab \n\u00f6\u6f22"), max_size=25),
    stops=st.lists(st.text(st.sampled_from("ab \u00f6"), min_size=1, max_size=3), max_size=2),
    stripped=st.booleans(),
)
@example(text="aba", stops=["b", "aba"], stripped=False)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_pieces_are_the_text_before_the_first_stop(text, stops, stripped, tiny_chat):
    speech, said = Speech(tiny_chat, stops=stops, stripped=stripped), []
    for token in tiny_chat.tokenizer(text)["input_ids"]:
        said.append(speech.add(token))
        if speech.stopped:
            break
    else:
        said.append(speech.end())
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    whole = text[: min(ends)[1]] if ends else text
    assert "".join(said) == (whole.strip() if stripped else whole)
    assert speech.stopped == bool(ends)


# ---- the process


@contextmanager
def process(run: Path, *arguments: str, **environment: str):
    command = [sys.executable, "-m", "instil", "serve", str(run), "--port", "0", *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        line = child.stdout.readline()
        yield child, line.split()[1]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.enable_socket
def test_a_server_finishes_what_is_under_way_when_it_is_told_to_end(done_lora):
    with process(done_lora) as (child, address):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        stream = ask(client, stream=True, max_tokens=200, temperature=2.0, seed=3)
        next(stream)
        child.send_signal(signal.SIGTERM)
        reasons = [event.choices[0].finish_reason for event in stream]
        assert reasons[-1] in ("stop", "length")
        assert child.wait(timeout=20) in (0, -signal.SIGTERM)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{address}/models", timeout=5)


@pytest.mark.enable_socket
@pytest.mark.slow
def test_many_clients_of_a_real_server_lose_nothing(done_lora):
    with process(done_lora) as (_, address):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=60)
        alone = {n: ask(client, f"{ASKED} {n}").choices[0].message.content for n in range(8)}
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda n: (n % 8, ask(client, f"{ASKED} {n % 8}")), range(256)))
        assert all(found.choices[0].message.content == alone[n] for n, found in answers)


def test_null_says_nothing():
    said = {"role": "assistant", "content": "Fine.", "refusal": None, "tool_calls": None}
    asked = {"messages": [{"role": "user", "content": "Hi"}, said], "temperature": None}
    found = ChatAsked.model_validate({**asked, "top_p": None, "stream": None, "tools": None})
    assert (found.temperature, found.top_p, found.stream) == (0.0, 1.0, False)
    assert [turn.content for turn in found.messages] == ["Hi", "Fine."]
    with pytest.raises(ValueError, match="tools"):
        ChatAsked.model_validate({**asked, "tools": [{"type": "function"}]})


def test_calls_that_never_end_do_not_keep_an_answer_back(service, client):
    ended, whole = threading.Event(), ask(client).choices[0].message.content

    def again() -> None:
        if not ended.is_set():
            service.engine.call(again)

    service.engine.call(again)
    try:
        assert ask(client, timeout=60).choices[0].message.content == whole
    finally:
        ended.set()
