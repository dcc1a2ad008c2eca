"""The recipes and templates that come with instil work as they stand."""

from pathlib import Path

import pytest

from instil.config.recipe import load_recipe
from instil.encode.chat_template import ChatRules
from instil.encode.mask import encode
from instil.model.load import ModelFolder, load_tokenizer
from instil.types import Example, Message, TrainOn

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
INSTRUCT = Path(__file__).parent.parent / "recipes" / "templates" / "instruct.jinja"


def test_there_are_recipes() -> None:
    assert {"quickstart", "multitask", "instruct"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_chat_template_exists(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.chat_template is None or Path(recipe.chat_template).is_file()


def test_the_template_for_base_models_trains_every_answer_and_its_end(tiny_base_folder) -> None:
    rules = ChatRules(template=str(INSTRUCT))
    folder = ModelFolder("tiny-base", tiny_base_folder, "none", chat=rules)
    chat = load_tokenizer(folder)
    messages = (
        Message("system", "Be brief."),
        Message("user", "Is it good?"),
        Message("assistant", "Very good."),
        Message("user", "And cheap?"),
    )
    example = Example("x", "", "", "", "", messages, "No.", train_on=TrainOn.ALL)
    made = encode(example, chat, max_length=512)
    text = chat.tokenizer.decode(list(made.ids))
    bos, eos = chat.tokenizer.bos_token, chat.tokenizer.eos_token
    assert text == (
        f"{bos}Be brief.\n\n### Instruction:\nIs it good?\n\n### Response:\nVery good.{eos}\n\n"
        f"### Instruction:\nAnd cheap?\n\n### Response:\nNo.{eos}"
    )
    trained = [token for token, mask in zip(made.ids, made.mask, strict=True) if mask]
    assert chat.tokenizer.decode(trained) == f"Very good.{eos}No.{eos}"
    assert chat.stop_ids == (chat.tokenizer.eos_token_id,)
    prompt = chat.tokenizer.decode(chat.prompt(messages))
    assert text == f"{prompt}No.{eos}"
