"""Run directories at an address: what is sent when, and who may go on with what."""

import socket
from pathlib import Path

import pytest

from instil.errors import RefusedError, RunError
from instil.stages import mirror, training
from instil.stages.mirror import fetch, publish
from instil.stages.runfiles import load_steps, load_summary
from moods import lay_out, make_recipe, run


@pytest.fixture
def address() -> str:
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    return "memory://bucket/runs/reviews"


def there(address: str) -> dict[str, bytes]:
    import fsspec

    files, root = fsspec.core.url_to_fs(address)
    return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work from here on as on another machine, which has a cache of its own."""
    monkeypatch.setenv("INSTIL_CACHE", str(folder))


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_one_machine_sends_another_has(address, tmp_path, monkeypatch) -> None:
    machine(monkeypatch, tmp_path / "a")
    first = fetch(address)
    assert first.name == "reviews"
    write(first, ledger="1", model__weights="w", checkpoints__last__a="c")
    write(first, **{".ledger.7.tmp": "half", ".lock": ""})
    publish(first)
    assert there(address).keys() == {"ledger", "model/weights", "checkpoints/last/a", ".turn"}
    machine(monkeypatch, tmp_path / "b")
    second = fetch(address)
    assert second != first
    assert (second / "model" / "weights").read_text() == "w"
    (second / "checkpoints" / "last" / "a").unlink()
    write(second, ledger="22")
    publish(second)
    assert there(address).keys() == {"ledger", "model/weights", ".turn"}
    assert there(address)["ledger"] == b"22"


def test_only_what_was_changed_is_sent(address, monkeypatch) -> None:
    folder = fetch(address)
    write(folder, a="1", b="1")
    publish(folder)
    mark = there(address)[".turn"]
    publish(folder)
    assert there(address)[".turn"] == mark
    sent: list[str] = []
    files, _ = mirror._system(address)
    put = type(files).put_file
    monkeypatch.setattr(
        type(files), "put_file", lambda self, a, b, **k: sent.append(b) or put(self, a, b, **k)
    )
    write(folder, b="22")
    publish(folder)
    assert [Path(name).name for name in sent] == ["b"]


def test_a_copy_that_another_machine_has_passed_is_not_sent(address, tmp_path, monkeypatch) -> None:
    machine(monkeypatch, tmp_path / "a")
    first = fetch(address)
    write(first, ledger="1")
    publish(first)
    machine(monkeypatch, tmp_path / "b")
    second = fetch(address)
    write(second, ledger="22", more="m")
    publish(second)
    write(first, ledger="333", mine="x")
    with pytest.raises(RefusedError, match="another machine has resumed"):
        publish(first)
    machine(monkeypatch, tmp_path / "a")
    assert fetch(address) == first  # what is there is taken, and what is not is removed
    assert (first / "ledger").read_text() == "22"
    assert not (first / "mine").exists()


def test_a_copy_that_was_stopped_while_sending_is_ahead(address, monkeypatch) -> None:
    folder = fetch(address)
    write(folder, a="1")
    publish(folder)
    files, _ = mirror._system(address)
    for broken in ("pipe_file", "put_file"):
        write(folder, a=f"more, {broken}")
        with monkeypatch.context() as patch:

            def fail(*_: object, **__: object) -> None:
                raise OSError("the line is down")

            patch.setattr(type(files), broken, fail)
            publish(folder)  # is tried again the next time
            with pytest.raises(RunError, match="the line is down"):
                publish(folder, last=True)
        assert fetch(address) == folder
        assert (folder / "a").read_text() == f"more, {broken}"
        publish(folder)
        assert there(address)["a"].decode() == f"more, {broken}"


def test_a_wrong_address_is_told_before_the_work(address, monkeypatch) -> None:
    folder = fetch(address)
    files, _ = mirror._system(address)

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("NoSuchBucket")

    monkeypatch.setattr(type(files), "pipe_file", fail)
    write(folder, a="1")
    with pytest.raises(RunError, match="NoSuchBucket"):
        publish(folder)


def test_what_a_run_tries_is_sent_with_it(address) -> None:
    folder = fetch(address)
    write(folder, arms__lora__checkpoints__last__a="c")
    publish(folder / "arms" / "lora")
    assert there(address).keys() == {"arms/lora/checkpoints/last/a", ".turn"}


def test_a_folder_of_this_machine_may_have_any_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("arms/x"), Path("arms"), Path()):
        write(folder, a="1")
        publish(folder)


def test_a_run_that_was_removed_at_its_address_is_begun_anew(address, monkeypatch) -> None:
    folder = fetch(address)
    write(folder, ledger="1", model__weights="w")
    publish(folder)
    files, root = mirror._system(address)
    files.rm(root, recursive=True)
    assert fetch(address) == folder
    assert not folder.exists()
    write(folder, ledger="2")
    publish(folder)
    assert there(address)["ledger"] == b"2"


def test_what_is_gone_at_the_address_leaves_no_empty_folder(address, tmp_path, monkeypatch) -> None:
    machine(monkeypatch, tmp_path / "a")
    first = fetch(address)
    write(first, ledger="1", checkpoints__last__a="c", encoded__x="x")
    publish(first)
    machine(monkeypatch, tmp_path / "b")
    second = fetch(address)
    (second / "checkpoints" / "last" / "a").unlink()
    publish(second)
    machine(monkeypatch, tmp_path / "a")
    assert sorted(path.name for path in fetch(address).iterdir()) == ["ledger"]


def test_looking_at_a_run_that_is_at_work_takes_nothing_from_it(address, monkeypatch) -> None:
    """It sends something between the look at the address and the look at its own note."""
    folder = fetch(address)
    write(folder, a="1")
    publish(folder)
    look = mirror._mark

    def slow(files: object, root: str) -> str:
        found = look(files, root)
        monkeypatch.setattr(mirror, "_mark", look)
        write(folder, a="22")
        publish(folder)
        write(folder, mine="not sent yet")
        return found

    monkeypatch.setattr(mirror, "_mark", slow)
    assert fetch(address) == folder
    assert (folder / "mine").exists()
    publish(folder)
    assert there(address)["mine"] == b"not sent yet"


def test_an_ordinary_folder_is_not_sent(tmp_path: Path) -> None:
    write(tmp_path / "run", a="1")
    publish(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_an_address_that_nothing_is_installed_for_is_told() -> None:
    with pytest.raises(RunError, match="cannot be reached") as told:
        fetch("nowhere://bucket/run")
    assert "Protocol not known" in str(told.value)


def test_a_file_out_of_the_run_is_refused(address, monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path / "a")
    files, root = mirror._system(address)
    files.pipe_file(f"{root}/.turn", b"x")
    found = [f"{root}/.turn", f"{root}/../../../out"]
    monkeypatch.setattr(type(files), "find", lambda *_, **__: found)
    with pytest.raises(RunError, match="outside of the run"):
        fetch(address)


def test_files_elsewhere_are_sent_under_a_temporary_name(tmp_path: Path) -> None:
    folder = fetch(f"file://{tmp_path}/share/reviews")
    write(folder, state__a="1")
    publish(folder)
    sent = tmp_path / "share" / "reviews"
    assert sorted(p.name for p in sent.rglob("*") if p.is_file()) == [".turn", "a"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # of the stand-in for S3
def test_a_run_on_s3_goes_on_on_another_machine(tmp_path, tiny_folder, monkeypatch) -> None:
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        address = "s3://bucket/runs/moods"
        recipe = make_recipe(lay_out(tmp_path), tiny_folder, "dtype=float32", "forgetting.rows=4")
        plain = run(recipe, tmp_path / "plain")

        machine(monkeypatch, tmp_path / "a")
        with monkeypatch.context() as patch:
            # The process ends at its first checkpoint, when that has been sent.
            send = training.publish

            def send_and_end(folder: Path) -> None:
                send(folder)
                raise KeyboardInterrupt

            patch.setattr(training, "publish", send_and_end)
            with pytest.raises(KeyboardInterrupt):
                run(recipe, fetch(address))
        machine(monkeypatch, tmp_path / "b")
        copy = fetch(address)
        assert (copy / "checkpoints" / "last").is_dir()
        assert 0 < len(load_steps(copy)) < len(load_steps(plain))
        done = run(recipe, copy, resume=True)
        assert [s.loss for s in load_steps(done)] == [s.loss for s in load_steps(plain)]
        machine(monkeypatch, tmp_path / "c")
        read = fetch(address)
        assert load_summary(read).verdict[0] == load_summary(plain).verdict[0]
        assert (read / "report.html").is_file()
    finally:
        server.stop()
