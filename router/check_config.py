"""`python -m router check-config FILE`: says what a configuration means, or everything that is wrong with it.

Contacts nothing: whether Triton and the upstreams answer is for the running router's /health/ready.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from router.errors import ConfigurationError
from router.settings import (
    TASK_TYPES,
    ClientSettings,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    PolicySettings,
    Replica,
    Settings,
    TaskMapPolicy,
    ThresholdPolicy,
    load_settings,
)


@dataclass(frozen=True, slots=True)
class Report:
    """Either settings, or the problems that prevent them."""

    settings: Settings | None
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when the configuration is usable, else 1."""
        return 0 if self.settings is not None else 1


def check(path: Path, environ: Mapping[str, str]) -> Report:
    """Read the configuration at `path` as `serve` would."""
    try:
        return Report(load_settings(path, environ))
    except ConfigurationError as error:
        return Report(None, tuple(error.problems))


def print_report(report: Report, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Print the meaning to `out` or the problems to `err`, one a line; return the exit code."""
    if report.settings is not None:
        print("\n".join(summary(report.settings)), file=out or sys.stdout)
        return report.exit_code
    for problem in report.problems:
        print(problem, file=err or sys.stderr)
    count = len(report.problems)
    print(f"{count} problem{'s' if count != 1 else ''}; nothing was started", file=err or sys.stderr)
    return report.exit_code


def summary(settings: Settings) -> list[str]:
    """Say in lines of text what the settings mean."""
    server, admin, triton = settings.server, settings.admin, settings.triton
    wait = f"{triton.max_queue_delay_ms:g} ms window, {triton.deadline_ms:g} ms deadline"
    lines = [
        f"{settings.source}: ok",
        "",
        f"server   {server.host}:{server.port}, {_counted(server.workers, 'worker')}",
        f"admin    {admin.host}:{admin.port}, dashboard and metrics" if admin.enabled else "admin    off",
        f"triton   {triton.url} (gRPC), model {triton.model}, batches of {triton.max_batch_size}, {wait}",
        f"         without a score: {_ON_FAILURE[triton.on_failure]}",
        "",
        "models",
    ]
    lines += _table([_model_row(model) for model in settings.models.values()])
    lines += ["", "policies"]
    for policy in settings.policies.values():
        first, *more = [*_policy_lines(policy), *_own_fallbacks(policy)]
        lines += [f"  {policy.name}: {first}", *(f"      {line}" for line in more)]
    if settings.clients:
        lines += ["", "clients", *_table([_client_row(client) for client in settings.clients.values()])]
    else:
        lines += ["", "clients  none: everybody who reaches the listener is let in"]
    return [*lines, "", f'model "auto" means policy "{settings.default_policy}"']


_ON_FAILURE = {"default_model": "the policy's default model answers", "reject": "503, the client retries"}


def _model_row(model: ModelSettings) -> Sequence[str]:
    price = model.price
    cost = "price unknown (dollars will be shown as unknown)"
    if price is not None:
        dollars = f"${price.input_per_million:g} in, ${price.output_per_million:g} out per million tokens"
        cost = f"{dollars} ({price.source})"
    limit = f"context {model.context_limit}" if model.context_limit else "context limit unknown"
    return model.name, model.model, ", ".join(map(_address, model.replicas)), cost, "; ".join([limit, *_limits(model)])


def _limits(model: ModelSettings) -> Iterator[str]:
    """Yield what is special about a model beside its context limit."""
    if model.supports is not None:
        yield f"supports {', '.join(model.supports) or 'text only'}"
    if model.fallbacks:
        yield f"falls back on {', '.join(model.fallbacks)}"


def _client_row(client: ClientSettings) -> Sequence[str]:
    keys = _counted(len(client.key_sha256), "key")
    budget = f"${client.budget_per_day:g} a day" if client.budget_per_day else "no budget"
    policies, models = (", ".join(names) or "none" for names in (client.policies, client.models))
    return client.name, keys, client.rate or "any rate", budget, f"policies: {policies}", f"models: {models}"


def _address(replica: Replica) -> str:
    return f"{replica.api_base} ({'with key' if replica.api_key else 'no key'})"


def _policy_lines(policy: PolicySettings) -> list[str]:
    default = f"without a score: {policy.default_model}"
    scored = f"conversation: {policy.conversation}; {default}"
    match policy:
        case FixedPolicy():
            return [f"fixed, always {policy.model}"]
        case ThresholdPolicy():
            score = " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in policy.score)
            first, *others = policy.tiers
            rows = [(f"below {others[0].at:g}", first.model)]
            rows += [(f"from {tier.at:g}", tier.model) for tier in others]
            return [f"threshold on {score}; {scored}", *_table(rows, "")]
        case ExpectedValuePolicy():
            rule = f"{policy.strong} where its gain is worth its extra cost, else {policy.weak}"
            return [f"expected value, ${policy.value:g} per right answer; {scored}", rule]
        case TaskMapPolicy():
            unsure = f", or a probability under {policy.min_probability:g}" if policy.min_probability else ""
            others_row = f"another task{unsure}: {policy.default_model}"
            return [f"task map; {scored}", *_table(policy.models, ""), others_row, *_unusual_tasks(policy)]
        case LabelPolicy():
            known = f"default label: {policy.default_label}; {scored}"
            return [f"label, from Triton model {policy.triton_model}; {known}", *_table(policy.llms, "")]


def _unusual_tasks(policy: TaskMapPolicy) -> Iterator[str]:
    """Yield what only a version with task types of its own can satisfy; it may also be a slip of the pen."""
    for task, _ in policy.models:
        if task not in TASK_TYPES:
            yield f'"{task}" is no task of the shipped classifier; the served version must have it'


def _own_fallbacks(policy: PolicySettings) -> Iterator[str]:
    if policy.fallbacks is not None:
        yield f"falls back on {', '.join(policy.fallbacks) or 'nobody'}, whatever its models do"


def _table(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Align the columns of `rows`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
