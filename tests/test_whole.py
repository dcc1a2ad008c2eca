"""A resumed run believes nothing that lies there: every change is noticed, and by its name."""

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from instil import pipeline
from instil.cli.folders import place_again
from instil.config.recipe import Recipe
from instil.encode.chat_template import ChatRules
from instil.errors import InstilError, RunError
from instil.model.load import ModelFolder
from instil.pipeline import compare_runs, rebuild_report
from instil.ship.export import export
from instil.ship.predict import predict_text
from instil.stages.directory import open_run
from instil.stages.judge import Look
from instil.stages.ledger import file_differences, load_ledger, record, release
from instil.stages.origins import chat_origins
from instil.stages.runfiles import load_manifest, load_scores, load_summary, load_tasks
from instil.tasks.task import load_task
from moods import lay_out, make_recipe, run, signalled_at

pytestmark = pytest.mark.slow  # many whole runs


SMALL = (
    "tasks.0.train=24",
    "validation=8",
    "test=12",
    "train.num_train_epochs=2",
    "train.eval_steps=2",
    "baselines.shots=[0]",
    "forgetting.rows=4",
    "forgetting.text=false",
    "dtype=float32",
)
STOPS = {"ladder": "guard_before", "training": "", "trained": "settle", "judged": "compare_guard"}
"""Where a run is stopped -> the function of the pipeline that it then would have called."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Rows, tasks and a model, beside which a run lies as it was at each stop."""
    place = lay_out(tmp_path_factory.mktemp("whole"))
    shutil.copytree(tiny_folder, place / "tiny")
    make_stops(place, "stopped", seed=0)
    return place


def make_stops(place: Path, name: str, *, seed: int) -> None:
    folder, wanted = place / name / "run", recipe_of(place, seed=seed)
    for number, stop in enumerate([*STOPS, "finished"]):
        with stopping_at(stop), contextlib.suppress(KeyboardInterrupt):
            run(wanted, folder, resume=number > 0)
        assert (folder / "summary.json").exists() == (stop == "finished")
        shutil.copytree(folder, place / name / stop)


def recipe_of(place: Path, *, seed: int = 0) -> Recipe:
    return make_recipe(place, place / "tiny", *SMALL, f"seed={seed}")


@contextmanager
def stopping_at(stop: str) -> Iterator[None]:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if stop == "training":
        with signalled_at(5, number=signal.SIGTERM):  # a step after a checkpoint
            yield
        return
    with pytest.MonkeyPatch.context() as patch:
        if stop in STOPS:
            patch.setattr(pipeline, STOPS[stop], interrupt)
        yield


@pytest.fixture
def at(place: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of the run as it was at a stop."""
    return lambda stop: Path(shutil.copytree(place / "stopped" / stop, tmp_path / "run"))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


SPOIL: dict[str, Callable[[bytes], bytes | None]] = {
    "changed": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "gone": lambda data: None,
}


def put(file: Path, data: bytes | None) -> None:
    file.unlink() if data is None else file.write_bytes(data)


def refused(act: Callable[[], object], *names: str) -> str:
    with pytest.raises(InstilError) as raised:
        act()
    assert all(name in str(raised.value) for name in names), str(raised.value)
    return str(raised.value)


def opened(recipe: Recipe, folder: Path, **options: object) -> None:
    """Open a run to go on with it; files are checked before anything is computed."""
    with open_run(recipe, folder=folder, resume=True, **options):
        pass


def entered(folder: Path) -> list[str]:
    return [path for entry in load_ledger(folder).stages.values() for path in entry.files]


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize(
    "stop", [*(pytest.param(s, marks=pytest.mark.slow) for s in STOPS), "finished"]
)
def test_every_file_of_a_stage(place: Path, at, stop: str, how: str) -> None:
    recipe, folder = recipe_of(place), at(stop)
    files = [*entered(folder), "ledger.json", "manifest.json"]
    assert len(files) >= {"ladder": 4, "training": 5, "trained": 12}.get(stop, 15)
    for name in files:
        whole = (folder / name).read_bytes()
        put(folder / name, SPOIL[how](whole))
        refused(lambda: opened(recipe, folder), name)
        put(folder / name, whole)
    opened(recipe, folder)
    assert (folder / "split.json").read_bytes() == (
        place / "stopped" / stop / "split.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["state-*.safetensors", "progress.json", "steps.jsonl"])
def test_what_a_training_goes_on_from(place: Path, at, name: str) -> None:
    recipe, folder = recipe_of(place), at("training")
    (file,) = (folder if name == "steps.jsonl" else folder / "checkpoints" / "last").glob(name)
    whole = file.read_bytes()
    for how, change in SPOIL.items():
        put(file, change(whole))
        said = refused(lambda: run(recipe, folder, resume=True), "checkpoint")
        assert "fix" in said, how
    put(file, whole)


def test_a_file_that_was_put_into_the_model(place: Path, at) -> None:
    recipe, folder = recipe_of(place), at("trained")
    (folder / "model" / "added_tokens.json").write_text("{}", encoding="utf-8")
    refused(lambda: opened(recipe, folder), "model/added_tokens.json")


def test_a_file_that_is_being_changed_may_be_anything_until_it_is_entered(tmp_path: Path) -> None:
    for name in ("model/a.json", "model/b.json", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1", encoding="utf-8")
    record(tmp_path, "training", ["model", "c.json"])
    release(tmp_path, ["model/a.json"])
    for change in SPOIL.values():
        put(tmp_path / "model" / "a.json", change(b"22"))
        assert file_differences(tmp_path, load_ledger(tmp_path)) == []
    (tmp_path / "model" / "a.json").write_text("3", encoding="utf-8")
    record(tmp_path, "handed-over", ["model/a.json"])
    assert file_differences(tmp_path, load_ledger(tmp_path)) == []
    (tmp_path / "model" / "a.json").write_text("4", encoding="utf-8")
    (found,) = file_differences(tmp_path, load_ledger(tmp_path))
    assert (found.what, found.stage) == ("model/a.json is not what was trained", "handed-over")


def test_people_may_write_in_the_card(at) -> None:
    folder = at("finished")
    (folder / "model" / "README.md").write_text("mine", encoding="utf-8")
    assert predict_text(folder, "phone 1: it is good").text


@pytest.mark.slow
@pytest.mark.parametrize("stop", [*STOPS, "finished"])
def test_files_swapped_with_another_runs(place: Path, at, stop: str) -> None:
    if not (place / "other").exists():
        make_stops(place, "other", seed=1)
    recipe, folder, other = recipe_of(place), at(stop), place / "other" / stop
    swapped = 0
    for name in (*entered(folder), "ledger.json", "manifest.json"):
        whole = (folder / name).read_bytes()
        theirs = (other / name).read_bytes()
        if theirs == whole:
            continue
        put(folder / name, theirs)
        refused(lambda: opened(recipe, folder), name)
        put(folder / name, whole)
        swapped += 1
    assert swapped >= 3
    if stop == "training":
        shutil.rmtree(folder / "checkpoints")
        shutil.copytree(other / "checkpoints", folder / "checkpoints")
        refused(lambda: run(recipe, folder, resume=True), "another run's")


# --- what a run is made from ----------------------------------------------------------------------


def lines_of(place: Path) -> list[str]:
    return (place / "moods.csv").read_text(encoding="utf-8").splitlines(keepends=True)


def flip_labels(place: Path) -> None:
    lines = lines_of(place)
    told = [line.replace("positive", "?").replace("negative", "positive") for line in lines]
    text = "".join(line.replace("?", "negative") for line in told)
    (place / "moods.csv").write_text(text, encoding="utf-8")


def shuffle_rows(place: Path) -> None:
    head, *lines = lines_of(place)
    (place / "moods.csv").write_text("".join([head, *reversed(lines)]), encoding="utf-8")


def add_rows(place: Path) -> None:
    with (place / "moods.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"n{n},n{n},new {n} good,positive,phone\n" for n in range(40))


def drop_rows(place: Path) -> None:
    head, *lines = lines_of(place)
    (place / "moods.csv").write_text("".join([head, *lines[40:]]), encoding="utf-8")


def change_weights(place: Path) -> None:
    file = place / "tiny" / "model.safetensors"
    file.write_bytes(flipped(file.read_bytes()))


def change_chat_template(place: Path) -> None:
    file = place / "tiny" / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def change_template(place: Path) -> None:
    file = place / "moods.yaml"
    text = file.read_text(encoding="utf-8").replace("Is it positive", "Is this positive")
    file.write_text(text, encoding="utf-8")


def change_settings(place: Path) -> None:
    with (place / "moods.yaml").open("a", encoding="utf-8") as file:
        file.write("max_new_tokens: 3\n")


def spoil_task(place: Path) -> None:
    (place / "moods.yaml").write_text("gone", encoding="utf-8")


INPUTS = {
    flip_labels: "labels of moods in moods.csv have changed",
    shuffle_rows: "rows of moods in moods.csv have changed",
    add_rows: "rows of moods in moods.csv have changed",
    drop_rows: "rows of moods in moods.csv have changed",
    change_weights: "model.safetensors of the base model has changed",
    change_chat_template: "chat_template.jinja of the base model has changed",
    change_template: "templates of moods have changed",
    change_settings: "settings of moods have changed",
}


@contextmanager
def changed(place: Path, change: Callable[[Path], None]) -> Iterator[None]:
    whole = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    change(place)
    try:
        yield
    finally:
        for file, data in whole.items():
            if file.read_bytes() != data:
                file.write_bytes(data)


@pytest.mark.parametrize("change", INPUTS, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    "stop",
    [*(pytest.param(stop, marks=pytest.mark.slow) for stop in STOPS if stop != "trained"),
     "trained"],
)  # fmt: skip
def test_everything_a_run_is_made_from(
    place: Path, tmp_path: Path, stop: str, change: Callable[[Path], None]
) -> None:
    recipe = recipe_of(place)
    folder = Path(shutil.copytree(place / "stopped" / stop, tmp_path / "run"))
    with changed(place, change):
        said = refused(lambda: run(recipe, folder, resume=True), INPUTS[change])
    assert f"--resume {folder} --restart-from split" in said


def test_a_chat_template_of_the_recipe_is_known_by_its_content_alone(
    tmp_path: Path, tiny_folder: Path
) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("one", encoding="utf-8")
    folder = ModelFolder("./tiny", tiny_folder, "", chat=ChatRules(template=str(template)))
    before = chat_origins(folder)
    assert list(before) == ["chat template mine.jinja"]
    template.write_text("two", encoding="utf-8")
    assert chat_origins(folder) != before
    own = replace(folder, chat=ChatRules(template="tool_use"))
    assert chat_origins(own) == {}


def test_another_version(place: Path, at, monkeypatch: pytest.MonkeyPatch) -> None:
    from instil.stages import origins

    monkeypatch.setattr(origins, "versions", lambda: {"torch": "1.0"})
    said = refused(lambda: run(recipe_of(place), at("trained"), resume=True), "version of torch")
    assert "found: 1.0" in said


# --- what is read later ---------------------------------------------------------------------------


def readers(place: Path, folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "report": lambda: rebuild_report(folder),
        "compare": lambda: compare_runs(place / "stopped" / "finished", folder),
        "predict": lambda: predict_text(folder, "phone 1: it is good"),
        "export": lambda: export(folder, out=folder / "out"),
    }


@pytest.mark.parametrize(
    "name",
    ["model/adapter_model.safetensors", "model/tokenizer.json", "scores/test-moods.jsonl",
     "steps.jsonl", "summary.json", "state/test.json"],
)  # fmt: skip
def test_report_compare_predict_and_export_check_as_well(place: Path, at, name: str) -> None:
    folder = at("finished")
    put(folder / name, flipped((folder / name).read_bytes()))
    for read in readers(place, folder).values():
        refused(read, name)


def test_a_model_is_asked_on_its_own_base_and_in_its_own_words(place: Path, at) -> None:
    folder = at("finished")
    with changed(place, change_weights):
        refused(lambda: predict_text(folder, "phone 1: it is good"), INPUTS[change_weights])
    said = predict_text(folder, "phone 1: it is good")
    asked = load_tasks(folder)
    assert asked["moods"] == load_task(str(place / "moods.yaml"))
    for change in (change_template, change_settings, spoil_task):
        with changed(place, change):
            assert predict_text(folder, "phone 1: it is good") == said, "its own task is kept"
            assert load_tasks(folder) == asked
    entry = folder / "tasks.json"
    put(entry, entry.read_bytes().replace(b"Is it", b"Is IT"))
    refused(lambda: predict_text(folder, "phone 1: it is good"), "tasks.json")


# --- doing stages anew ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["training", "probabilities"])
def test_nothing_is_dropped_where_the_rows_have_changed(place: Path, at, stage: str) -> None:
    recipe, folder = recipe_of(place), at("finished")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for change in (add_rows, spoil_task, change_weights):
        with changed(place, change):
            again = {"resume": True, "look": Look.AGAIN, "restart_from": stage}
            refused(lambda again=again: run(recipe, folder, **again))
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_run_of_other_rows_is_not_this_one_again(place: Path, at) -> None:
    recipe, folder = recipe_of(place), at("finished")
    assert place_again(recipe, folder=folder).finished
    for change in (add_rows, flip_labels, change_template):
        with changed(place, change):
            found = place_again(recipe, folder=folder)
        assert (found.folder.name, found.finished) == (f"{folder.name}-2", False)
        assert "changed since" in found.passed


def test_a_refused_look_takes_nothing(place: Path, at) -> None:
    recipe, folder = recipe_of(place), at("finished")
    manifest, ledger = load_manifest(folder), load_ledger(folder)
    with changed(place, change_weights):
        refused(lambda: run(recipe, folder, resume=True, look=Look.AGAIN), "model.safetensors")
    assert load_manifest(folder)["model"] == manifest["model"]
    assert load_ledger(folder) == ledger


def test_a_stage_is_done_anew_with_all_later_ones(place: Path, at) -> None:
    recipe, folder = recipe_of(place), at("judged")
    before = load_scores(folder, "test-moods")
    put(folder / "model" / "adapter_model.safetensors", b"garbage")
    again = {"resume": True, "look": Look.AGAIN, "restart_from": "training"}
    with pytest.raises(RunError, match="--look-again"):
        run(recipe, folder, **{**again, "look": Look.ONCE})
    with pytest.raises(RunError, match="no finished stage 'nonsense'"):
        run(recipe, folder, **{**again, "restart_from": "nonsense"})
    ladder = (folder / "state" / "ladder.json").stat().st_mtime_ns
    run(recipe, folder, **again)
    assert (folder / "state" / "ladder.json").stat().st_mtime_ns == ladder
    assert load_scores(folder, "test-moods") == before
    assert len(load_manifest(folder)["test_opened"]) == 2
    assert load_summary(folder).looks == 2


def test_after_a_change_of_rows_the_run_is_made_from_the_new_ones(place: Path, at) -> None:
    folder = at("ladder")
    with changed(place, flip_labels), stopping_at("training"):
        with pytest.raises(KeyboardInterrupt):
            run(recipe_of(place), folder, resume=True, restart_from="split")
        assert [*load_ledger(folder).stages] == ["split", "ladder", "guard-before"]
