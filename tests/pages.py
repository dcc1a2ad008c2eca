"""The page of a folder, asked without a network."""

from __future__ import annotations

from starlette.testclient import TestClient

from instil.web.app import make_app
from instil.web.site import Site

TOKEN = "secret"
HOME = f"/{TOKEN}/"
OWN = {"Origin": "http://localhost"}
"""What a browser sends from the page itself."""


def client_of(site: Site) -> TestClient:
    return TestClient(make_app(site), base_url="http://localhost", headers=OWN)
