"""Routers that have clients: `ops`, which may do everything, and `team`, which a test holds to something."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import openai

from loadtest.simulated_llm import SimulatedLLM
from router.clients.keys import digest_of
from tests.faults.configuration import config
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, CHAT, RouterProcess, chat_body, send, write_config

OPS, TEAM, OLD, NEW = (f"sk-{name}-{CANARY}" for name in ("ops", "team", "old", "new"))
REFUSALS, CLIENT_COST = "llm_router_client_refusals_total", "llm_router_client_cost_dollars_total"
LEFT = "llm_router_client_budget_left_dollars"
DOLLAR_A_TOKEN = {"input": 1_000_000, "output": 1_000_000}


def settings_of(llm: SimulatedLLM, **team: Any) -> dict[str, Any]:
    """Two clients: `ops`, which may do everything, and `team`, held to what is given here."""
    settings = config(llm, closed_port())
    settings["policies"] = {
        "default": {"type": "fixed", "model": "expensive"},
        "thrifty": {"type": "fixed", "model": "cheap"},
    }
    settings["clients"] = {"ops": {"key_sha256": digest_of(OPS)}, "team": {"key_sha256": digest_of(TEAM), **team}}
    return settings


def with_budget(llm: SimulatedLLM, state: Path, budget: float) -> dict[str, Any]:
    """Hold `team` to so many dollars a day, where a token costs one."""
    settings = settings_of(llm, budget_per_day=budget)
    settings["server"]["state_dir"] = str(state)
    for name in settings["models"]:
        settings["models"][name] = {**settings["models"][name], "price": DOLLAR_A_TOKEN}
    return settings


def asking(router: RouterProcess, key: str = TEAM, *, max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=router.base_url, api_key=key, max_retries=max_retries, timeout=20)


def ask(router: RouterProcess, key: str = TEAM, *, max_retries: int = 0, **fields: Any) -> Any:
    """Ask by the real client, for one short answer."""
    with asking(router, key, max_retries=max_retries) as client:
        body: dict[str, Any] = {"model": "cheap", "messages": [{"role": "user", "content": "Hello?"}], **fields}
        return client.chat.completions.create(**body)


def status_of(router: RouterProcess, key: str = TEAM, **fields: Any) -> int:
    body = chat_body("Hello?", **{"model": "cheap", **fields})
    return send(router.port, "POST", CHAT, body, {"authorization": f"Bearer {key}"}).status


def in_file(state: Path) -> float:
    with closing(sqlite3.connect(state / "spending.sqlite")) as file:
        return float(file.execute("SELECT coalesce(sum(dollars), 0) FROM spent WHERE client = 'team'").fetchone()[0])


def reload(router: RouterProcess, settings: dict[str, Any]) -> None:
    write_config(settings, router.child.log_path.parent)
    assert send(router.operators_port, "POST", "/admin/reload").status == 200
