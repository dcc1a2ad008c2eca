from cases import Case, Side, Target, cases, gpu_cases
from figures import case_figures
from hardware import ModelSize
from settings import TRL
from table import cell, table

MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "memory_bytes": 8e9,
    "torch": "2",
    "transformers": "5",
    "peft": "0",
    "python": "3",
}


def run(seconds):
    return {"tokens": 100, "computed": 80, "places": 10, "seconds": seconds, "peak_bytes": 2e9}


def report(**more):
    case = Case(
        "LoRA",
        lambda folder: None,
        {"instil": Side(""), "peer": Side("")},
        operations=4,
        targets=(Target("speed", 10.0, "peer"), Target("memory", 1.0, "peer"), Target("peak", 0.6)),
        note="a note",
    )
    measured = {
        "name": "LoRA",
        "sides": {
            "instil": {"settings": "", "tried": {}, "runs": [run(1.0), run(2.0)]},
            "peer": {
                "settings": "--settings padded",
                "tried": {"--settings padded": 25.0, "--settings packing": "a | b"},
                "runs": [run(4.0), run(4.0)],
            },
            "broken": {"settings": "4", "tried": {}, "runs": [{"failed": "out of | memory"}]},
        },
        "agreement": {"says": "all the same", "agrees": True},
    }
    figures = case_figures(case, measured, size=ModelSize(1000, 100), peak=1e6)
    return {
        "date": "2026-01-01",
        "machine": MACHINE,
        "matrix_peaks": {"1024": 4e11},
        "model": "a model",
        "repeats": 2,
        "cases": [figures],
        **more,
    }


def test_every_row_of_a_table_has_as_many_cells_as_its_header():
    lines = table(report(not_measured=["GPU: 1B shape, lora"])).splitlines()
    width = 0
    rows = 0
    for line in lines:
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width, line
        rows += 1
    assert rows > 8


def test_figures_stand_with_their_spread_and_targets_with_their_verdict():
    text = table(report())
    assert "| LoRA | instil | 75 (50 to 100) | 1.5 (1.0 to 2.0) | 2.00 GB |" in text
    assert "3.00 (2.00 to 4.00) x as fast | 100% |" in text
    assert "| LoRA | broken | failed: out of \\| memory |" in text
    assert "| LoRA | speed against peer: at least 10 | 3 | **short of it** |" in text
    assert "| LoRA | memory against peer: at most 100% | 100% | met |" in text
    assert "- LoRA: agree. all the same." in text
    assert "- LoRA, peer: `padded` (" in text
    assert "GFLOP/s by size: 1024: 400" in text


def test_what_was_not_measured_is_told_and_a_quick_run_is_not_taken_for_more():
    assert "| GPU: 1B | | not measured |" in table(report(not_measured=["GPU: 1B"]))
    assert "measures nothing" in table(report(quick=True))
    assert "measures nothing" not in table(report())


def test_text_cannot_break_a_table():
    assert cell("a | b\nc") == "a \\| b c"


def test_cases_have_instil_first_and_only_known_settings():
    every = [*cases(), *cases(quick=True), *gpu_cases(), *gpu_cases(tiny=True)]
    assert len(every) > 20
    for case in every:
        assert next(iter(case.sides)).startswith("instil")
        against = {target.against for target in case.targets} - {""}
        assert against <= set(case.sides)
        for side in (*case.sides.values(), *case.agree):
            for more in side.candidates:
                arguments = [*side.arguments, *more]
                if "--settings" in arguments:
                    assert arguments[arguments.index("--settings") + 1] in TRL
