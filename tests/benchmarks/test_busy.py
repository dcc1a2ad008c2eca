import busy


def test_a_line_a_load_and_a_column_a_number_of_spins():
    speeds = {(0, 9000): [10.0, 30.0, 20.0], (0, 0): [5.0], (2, 9000): [1.0], (2, 0): [4.0]}
    lines = [
        {"beside": beside, "spins": spins, "tokens_per_second": found, "others": [0.1, 0.25]}
        for (beside, spins), found in speeds.items()
    ]
    machine = {"processor": "a processor", "cores": 2}
    report = {"date": "today", "machine": machine, "turns": 3, "lines": lines}
    *_, header, _, idle, loaded = busy.table(report).splitlines()
    assert header == "| busy processes beside it | 9,000 | 0 | others, cores |"
    assert idle == "| 0 | 20 (10 to 30) | 5 (5 to 5) | 0.1 to 0.2 |"
    assert loaded == "| 2 | 1 (1 to 1) | 4 (4 to 4) | 0.1 to 0.2 |"


def test_what_is_ours_is_not_others():
    before = busy.ProcessorSeconds(clock=10.0, all=100.0, ours=20.0)
    after = busy.ProcessorSeconds(clock=14.0, all=108.0, ours=26.0)
    assert after.others_since(before) == 0.5
    assert busy.processor_seconds().all > 0
