from agreement import agreement, choices, losses, texts

OURS = {"loss": 2.0, "trained": [[7, 2], [8, 9, 2]]}
THEIRS = {"loss": 1.5, "loss_to_stop": 2.001, "trained": [[7, 2, 5], [8, 9, 2, 5]]}


def test_losses_agree_on_the_tokens_that_both_train_on():
    found = losses(OURS, THEIRS, trained={"instil": 2.01})
    assert found["agrees"]
    assert "5 tokens trained on, TRL 2 more" in found["says"]
    assert "instil 2.010" in found["says"]


def test_another_loss_or_another_token_is_told():
    assert not losses(OURS, {**THEIRS, "loss_to_stop": 2.01}, trained={})["agrees"]
    other = {**THEIRS, "trained": [[7, 2, 5], [8, 8, 2, 5]]}
    found = losses(OURS, other, trained={})
    assert not found["agrees"]
    assert "the same ids in 1 of 2 rows" in found["says"]


def test_choices_are_compared_by_their_differences_within_a_row():
    ours, theirs = [[-1.0, -2.0]], [[-5.0, -6.0]]  # what is added to both of a row says nothing
    found = choices(ours, theirs)
    assert found["agrees"]
    assert "0.00 nats" in found["says"]
    assert not choices(ours, [[-6.0, -5.0]])["agrees"]


def test_texts_may_part_behind_their_first_words():
    assert texts(["a b c"], ["a b d"])["agrees"]
    assert not texts(["a b c"], ["x b c"])["agrees"]


def test_a_failed_account_never_agrees():
    found = agreement({"instil": [{}], "peer": [{}]}, [{"failed": "no memory"}, THEIRS])
    assert found == {"says": "not compared: no memory", "agrees": False}


def test_what_is_compared_goes_by_what_the_sides_tell():
    scored = {"instil": [{"nats": [[-1.0, -2.0]]}], "peer": [{"nats": [[-1.0, -2.0]]}]}
    assert "same choice in 1 of 1" in agreement(scored, [])["says"]
    written = {"instil": [{"texts": ["a"]}], "peer": [{"texts": ["a"]}]}
    assert "same text in 1 of 1" in agreement(written, [])["says"]
    trained = {"instil": [{"loss": [2.5]}], "peer": [{"failed": "x"}]}
    assert "as trained: instil 2.500" in agreement(trained, [OURS, THEIRS])["says"]
    assert agreement({"instil": [{}], "peer": [{"failed": "x"}]}, []) == {}
