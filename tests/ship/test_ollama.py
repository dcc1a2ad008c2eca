"""Chat templates in Ollama's words: what Go writes is what the model's own template writes."""

from __future__ import annotations

import re

import jinja2
import pytest

from chat_templates import FAMILIES, byte_level
from instil.encode.chat_format import chat_format
from instil.encode.chat_proof import SystemHeld
from instil.errors import ModelError
from instil.ship.ollama import frame

NO_FRAME = {"r1"}
"""It takes thoughts out of earlier answers."""
TALK = [("user", "is it good?"), ("assistant", "yes,\n it is"), ("user", "and now")]


def by_go(template: str, system: str, turns: list[tuple[str, str]]) -> str:
    """Render the few commands of Go that are used, as Jinja."""
    jinja = template.replace("{{ range .Messages }}", "{% for m in messages %}")
    jinja = re.sub(r'{{ if eq \.Role "(\w+)" }}(.*?){{ end }}', _by_role, jinja, flags=re.DOTALL)
    jinja = jinja.replace("{{ if .System }}", "{% if system %}").replace(
        "{{ .System }}", "{{system}}"
    )
    if "{% if system %}" in jinja:
        jinja = jinja.replace("{{ else }}", "{% else %}", 1).replace("{{ end }}", "{% endif %}", 1)
    jinja = jinja.replace("{{ end }}", "{% endfor %}")
    environment = jinja2.Environment(keep_trailing_newline=True)
    messages = [{"role": role, "content": text} for role, text in turns]
    return environment.from_string(jinja).render(system=system, messages=messages)


def _by_role(found: re.Match[str]) -> str:
    inner = found[2].replace("{{ .Content }}", "{{m.content}}")
    return f"{{% if m.role == '{found[1]}' %}}{inner}{{% endif %}}"


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NO_FRAME))
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_ollama_writes_what_the_template_writes(family: str, system: str):
    chat = chat_format(byte_level(family))
    if system and chat.holds.system is not SystemHeld.KEPT:
        system = ""
    for turns in (TALK[:1], TALK):
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": role, "content": text} for role, text in turns]
        if chat.holds.parts:
            for m in messages:
                m["content"] = [{"type": "text", "text": m["content"]}]
        wanted = chat.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        assert by_go(frame(chat).template(), system, turns) == wanted


@pytest.mark.parametrize("family", sorted(NO_FRAME))
def test_a_template_that_is_no_frame_is_refused(family: str):
    with pytest.raises(ModelError, match="Ollama"):
        frame(chat_format(byte_level(family)))
