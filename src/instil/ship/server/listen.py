"""Listening on an address until the process is told to end; what is under way is finished first.

Nothing of a model is imported here: the page of `instil ui` is served by it too.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from instil.errors import RunError


def is_loopback(name: str) -> bool:
    """Whether a name or an address is of this machine alone."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def names_this_machine(host: str) -> bool:
    """Whether a request's `Host` header is a loopback name.

    A page of another site, whose name leads here by a trick, sends its own.

    >>> names_this_machine("localhost:8000"), names_this_machine("localhost.evil.example:80")
    (True, False)
    >>> names_this_machine("127.0.0.2:8000"), names_this_machine("[::1]"), names_this_machine("")
    (True, True, False)
    """
    name = re.sub(r":\d+\Z", "", host).lower()
    return is_loopback(name.removeprefix("[").removesuffix("]"))


def run_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    grace: int | None = None,
) -> None:
    """Run an application until SIGINT or SIGTERM; what is under way is finished first.

    Args:
        app: Answers.
        host: The address to listen on.
        port: 0: any that is free.
        on_ready: Called with the server's address.
        grace: Seconds that what is under way may still take; None: as long as it takes.

    Raises:
        RunError: The address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(2048)  # whoever comes from here on waits, and is not refused
        except OSError as error:
            raise RunError(
                f"cannot listen on {host}, port {port}",
                found=error.strerror or "",
                fix="--port 0 takes a free one",
            ) from error
        name = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=grace,
        )
        on_ready(f"http://{name}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])
