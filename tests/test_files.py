"""Files that threads of one process write."""

import json
import threading

from instil.files import append_line, write_whole


def test_lines_and_files_of_several_threads_are_all_there(tmp_path):
    path, failed = tmp_path / "votes.jsonl", []

    def add(number):
        try:
            append_line(path, {"n": number})
            write_whole(tmp_path / "whole.txt", b"x" * 10_000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {json.loads(line)["n"] for line in path.read_text().splitlines()} == set(range(40))
    assert (tmp_path / "whole.txt").stat().st_size == 10_000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["votes.jsonl", "whole.txt"]
