"""`instil status`: whole, or what is not."""

from pathlib import Path

from instil.config.recipe import Recipe, TaskUse
from instil.stages.directory import open_run


def test_status_names_what_is_not_whole(tmp_path: Path, instil_command) -> None:
    folder, recipe = tmp_path / "run", Recipe(model="tiny", tasks=(TaskUse(use="trivia"),))
    with open_run(recipe, folder=folder, resume=False) as run:
        run.kept("ladder", int, lambda: 1)
    result = instil_command("status", folder)
    assert result.exit_code == 0
    assert "stages done: ladder" in result.stdout
    assert "whole: all 1 files" in result.stdout
    (folder / "state" / "ladder.json").write_bytes(b"2")
    result = instil_command("status", folder)
    assert result.exit_code == 2
    assert "state/ladder.json" in result.stderr
    (folder / "ledger.json").write_bytes(b"{}")
    result = instil_command("status", folder)
    assert result.exit_code == 2
    assert "ledger.json" in result.stderr
    assert instil_command("status", tmp_path / "none").exit_code == 2
