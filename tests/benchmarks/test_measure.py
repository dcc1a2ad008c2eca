import sys
from pathlib import Path

from cases import Case, Side
from measure import last_line, measure


def case(tmp_path) -> Case:
    def make(folder: Path) -> None:
        (folder / "rows.jsonl").write_text("{}\n")

    return Case(
        "a case",
        make,
        {
            "instil": Side("ours.py"),
            "peer": Side(
                "theirs.py", ("x",), peer=True, candidates=(("1",), ("2",), ("3",)), trying=("-s",)
            ),
            "own rows": Side("ours.py", rows="a_task"),
        },
    )


def test_sides_take_turns_in_their_fastest_settings_that_work(tmp_path):
    seen = []
    seconds = {"1": 2.0, "2": 1.0}

    def run(command):
        seen.append([Path(part).name for part in command[:3]] + command[4:])
        setting = command[5] if len(command) > 5 else ""
        if setting == "3":
            return {"failed": "out of memory"}
        return {"tokens": 10, "seconds": seconds.get(setting, 1.0), "nats": [[0.0, 1.0]]}

    found = measure(case(tmp_path), model=Path("m"), peers="py", repeats=2, run=run)
    peer = found["sides"]["peer"]
    assert peer["settings"] == "2"
    assert peer["tried"] == {"1": 5.0, "2": 10.0, "3": "out of memory"}
    assert len(peer["runs"]) == 2
    assert all("nats" not in kept for kept in peer["runs"])
    python = Path(sys.executable).name
    ours = [python, "ours.py", "rows.jsonl"]
    theirs = ["py", "theirs.py", "rows.jsonl", "x"]
    own = [python, "ours.py", "a_task"]
    assert seen[:3] == [[*theirs, n, "-s"] for n in "123"]
    assert seen[3:] == [ours, [*theirs, "2"], own, own, [*theirs, "2"], ours]


def test_a_side_that_fails_is_not_asked_again_and_others_go_on(tmp_path):
    asked = []

    def run(command):
        asked.append(Path(command[1]).name)
        if asked[-1] == "theirs.py":
            return {"failed": "no"}
        return {"tokens": 1, "seconds": 1.0}

    found = measure(case(tmp_path), model=Path("m"), peers="py", repeats=3, run=run, try_all=False)
    assert asked.count("theirs.py") == 1
    assert len(found["sides"]["instil"]["runs"]) == 3
    assert found["sides"]["peer"] == {"settings": "1", "tried": {}, "runs": [{"failed": "no"}]}


def test_a_side_prints_json_last_or_says_why_it_failed(tmp_path, capfd):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("print('noise')\nprint('{\"tokens\": 1}')\n")
    bad.write_text("raise MemoryError('too large')\n")
    assert last_line([sys.executable, str(good), "rows", "model"]) == {"tokens": 1}
    assert last_line([sys.executable, str(bad), "rows", "model"]) == {
        "failed": "MemoryError: too large"
    }
