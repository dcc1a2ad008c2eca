"""Where each situation that users of fine-tuning tools have reported is tried: an index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHAT, FORMAT = "test_chat_cases.py", "encode/test_chat_format.py"
SOURCE, STARTER, INSPECT = (
    "data/sources/test_source.py",
    "init/test_starter.py",
    "init/test_inspect.py",
)
CASES: dict[str, tuple[str, str]] = {
    # situation -> file of the test, name of the test
    "gemma_system": (CHAT, "test_a_system_message_that_the_template_refuses_is_one_error"),
    "gemma_alternation": (
        CHAT, "test_neighbours_and_opening_turns_that_the_template_refuses_are_counted"
    ),
    "assistant_first": (
        CHAT, "test_a_greeting_is_read_and_the_answer_behind_it_trained_on"
    ),
    "named_templates_without_default": (CHAT, "test_named_templates_need_a_name"),
    "think_open": (FORMAT, "test_no_think_block_is_opened_for_a_model_that_is_not_to_think"),
    "answer_prefix_qwen3": (FORMAT, "test_an_empty_think_block_belongs_to_the_prompt"),
    "answer_prefix_space": (
        FORMAT, "test_a_blank_before_the_answer_goes_into_its_first_token"
    ),
    "sentencepiece": (
        FORMAT, "test_sentencepiece_puts_no_blank_of_its_own_before_an_answer"
    ),
    "hub_dataset_offline": ("data/sources/test_hub.py", "test_offline_the_hubs_own_cache_is_read"),
    "hub_dataset_without_a_copy": (
        "data/sources/test_hub.py", "test_offline_without_a_copy_says_what_to_do"
    ),
    "encoder_only": ("test_bad_input.py", "test_an_encoder_cannot_write"),
    "template_wants_list_content": (
        CHAT, "test_content_is_given_in_parts_where_the_template_wants_parts"
    ),
    "template_drops_system": (
        CHAT, "test_a_system_message_that_the_template_leaves_out_is_counted"
    ),
    "date_in_template_resume": (
        CHAT, "test_the_day_and_the_prompt_of_a_run_are_kept_wherever_its_model_is_used"
    ),
    "nan_labels": (STARTER, "test_not_a_number_is_missing_everywhere"),
    "fraction_labels": (STARTER, "test_fractions_and_small_floats_work_unedited"),
    "trl_prompt_completion_lists": (INSPECT, "test_columns_of_turns_are_a_conversation"),
    "a_list_as_python_writes_it": (
        "tasks/test_template.py", "test_no_expression_is_written_as_python_writes_it"
    ),
    "no_usable_conversation": (
        INSPECT, "test_two_answers_a_row_teach_nothing_and_the_reason_is_told"
    ),
    "empty_earlier_answers": (FORMAT, "test_empty_and_untrained_answers_are_context"),
    "over_50_classes": (INSPECT, "test_more_than_fifty_classes_are_a_label_by_their_name"),
    "long_labels": (INSPECT, "test_labels_of_a_hundred_characters_are_labels"),
    "chinese_text_not_found": (
        INSPECT, "test_texts_without_blanks_are_measured_in_characters"
    ),
    "pandas_json": (SOURCE, "test_tables_as_pandas_writes_them"),
    "concatenated_json": (SOURCE, "test_json_values_one_after_another_are_one_error"),
    "trailing_commas": (SOURCE, "test_lines_that_end_with_a_comma_are_one_error"),
    "workbooks": ("data/readers/test_sheets.py", "test_init_works_unedited_on_a_workbook"),
    "predict_encoding": ("test_predict_words.py", "test_the_tasks_own_encoding_is_the_default"),
    "predict_overwrites_column": (
        "test_predict_words.py", "test_no_column_of_the_rows_is_replaced"
    ),
    "resume_while_running": ("stages/test_lock.py", "test_a_second_process_is_told_who_is_at_work"),
    "merge_tied_embeddings": (
        "model/test_export.py", "test_adapters_on_embeddings_are_merged_into_what_they_were_on"
    ),
    "t5": ("test_other_families.py", "test_a_run_from_rows_to_report"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_case_has_a_test(case: str) -> None:
    file, name = CASES[case]
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", text, re.MULTILINE)
