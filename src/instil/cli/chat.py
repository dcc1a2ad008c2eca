"""`instil chat`: talk to a run's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instil.cli.options import RunFolder
from instil.cli.terminal import say, say_answer
from instil.errors import InstilError

if TYPE_CHECKING:
    from instil.ship.chat import Chat

_LEAVE = frozenset({"/quit", "/exit", "/q"})


def chat(run: RunFolder) -> None:
    """Talk to a run's tuned model; /quit or Ctrl-D ends it, Ctrl-C stops an answer."""
    from instil.ship.chat import chat as begin

    talk(begin(run))


def talk(partner: Chat) -> None:
    """Read lines and print answers until the user leaves."""
    say("/quit or Ctrl-D ends the conversation")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            say()
            return
        except UnicodeDecodeError:
            say("this line is not UTF-8 text", err=True)
            continue
        if line in _LEAVE:
            return
        if not line:
            continue
        try:
            for piece in partner.reply(line):
                say_answer(piece, nl=False)
        except KeyboardInterrupt:
            say(" [stopped]", nl=False)
        except InstilError as error:  # too long, say: the conversation so far is kept
            say(error, err=True)
            continue
        say()
