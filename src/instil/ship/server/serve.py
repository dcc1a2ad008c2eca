"""Starting the server: models, engine, address, and an end that lets requests finish.

Tests: `tests/ship/test_server.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from instil.config.recipe import load_recipe
from instil.errors import RunError
from instil.ship.predict import usual_answer
from instil.ship.server.app import Limits, Service, make_app
from instil.ship.server.engine import Engine
from instil.ship.server.listen import is_loopback, run_server
from instil.ship.shipped import load_run_base, load_run_model
from instil.stages.runfiles import RECIPE, load_summary

if TYPE_CHECKING:
    from instil.model.load import LoadedModel


def make_service(
    run: Path, *, base: bool = True, dtype: str = "", limits: Limits | None = None
) -> Service:
    """Load a run's model, and its base model beside it; the engine begins.

    Args:
        run: A finished run.
        base: Whether the base model is served too. Where the run trained an adapter it takes no
            more memory: its adapter is switched off.
        dtype: What to compute in; empty: as the recipe says. In bfloat16 an answer may depend on
            what else is computed with it, as in every batch.
        limits: What the server takes.

    Raises:
        RunError: The folder is no finished run, or the model has an encoder.
        ModelError: The base model or the adapter cannot be loaded.
    """
    name, loaded = load_summary(run).name, load_run_model(run, dtype=dtype)
    if loaded.model.config.is_encoder_decoder:
        raise RunError(
            "models with an encoder are not served: their prompts are no conversations",
            where=str(run),
            fix="instil predict RUN --rows FILE answers rows of the run's task",
        )
    loaded.model.eval()
    models: dict[str, LoadedModel] = {name: loaded}
    bases: list[str] = []
    if base:
        recipe = load_recipe(run / RECIPE)
        known = Path(recipe.model).name if Path(recipe.model).exists() else recipe.model
        other = known if known != name else f"{known}-base"
        if hasattr(loaded.model, "peft_config"):
            models[other], bases = loaded, [other]
        else:
            models[other] = load_run_base(run, dtype=dtype)
    tokens = usual_answer(run)
    return Service(Engine(models, bases=bases), run, name, limits or Limits(), answer_tokens=tokens)


def serve(
    service: Service, *, host: str, port: int, token: str, on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; what is under way is finished first.

    Args:
        service: As `make_service` returned it.
        host: The address to listen on.
        port: 0: any that is free.
        token: What clients must send; empty only on loopback.
        on_ready: Called with the server's address.

    Raises:
        RunError: There is no token for an address that others can reach, or the address is taken.
    """
    require_token(host, token)
    try:
        run_server(
            make_app(service, token=token),
            host=host,
            port=port,
            on_ready=lambda address: on_ready(f"{address}/v1"),
        )
    finally:
        service.engine.close()


def require_token(host: str, token: str) -> None:
    """Refuse to serve others without a token.

    Raises:
        RunError: The address is not of this machine alone, and there is no token.
    """
    if not is_loopback(host) and len(token) < 16:
        raise RunError(
            f"{host} can be reached from other machines, and there is no token",
            where="--host",
            found="INSTIL_TOKEN " + ("is shorter than 16 characters" if token else "is not set"),
            fix="set INSTIL_TOKEN to a long random text, which clients send as their API key",
        )
