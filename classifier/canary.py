"""What routers count of two versions, and whether the new one may go on: reading metrics, and pure judgement."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Key = tuple[str, str]
SCORED: Final = ("classifier", "cache")  # decisions that a version's score has made
FEWEST_CALLS: Final = 20  # the p95 of fewer is their slowest one, which says nothing


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one version has done: calls' seconds as histogram, rows, and decisions by (policy, model)."""

    rows: float = 0.0
    failed: float = 0.0
    seconds: Mapping[float, float] = field(default_factory=dict)  # bucket's upper bound -> calls up to it
    decisions: Mapping[Key, float] = field(default_factory=dict)

    def since(self, before: "Traffic") -> "Traffic":
        """What has been added; a router that was restarted in between counts from 0 again."""
        return Traffic(
            max(0.0, self.rows - before.rows),
            max(0.0, self.failed - before.failed),
            {bound: max(0.0, calls - before.seconds.get(bound, 0)) for bound, calls in self.seconds.items()},
            {key: max(0.0, count - before.decisions.get(key, 0)) for key, count in self.decisions.items()},
        )

    @property
    def decided(self) -> float:
        """How many decisions there were."""
        return sum(self.decisions.values())

    def models(self, policy: str) -> dict[str, float]:
        """How many decisions of this policy there were for each model."""
        return {model: count for (asked, model), count in self.decisions.items() if asked == policy}

    @property
    def calls(self) -> float:
        """How many calls there were."""
        return max(self.seconds.values(), default=0.0)

    def quantile(self, q: float) -> float:
        """The upper bound of the bucket that holds the q-quantile of the calls' seconds; 0 without calls."""
        wanted = q * self.calls
        return next((bound for bound, calls in sorted(self.seconds.items()) if calls >= wanted > 0), 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a canary is rolled back."""

    errors: float = 0.01  # failed rows of the new version, as a share
    latency: float = 2.0  # p95 of its calls, as a multiple of the serving version's
    drift: float = 0.15  # of its decisions that go elsewhere than the serving version's
    decisions: int = 200  # of each version, before drift is judged and a step is over


def objection(new: Traffic, serving: Traffic, limits: Limits) -> str | None:
    """Why the new version must go back, None while nothing speaks against it."""
    # The share of the rows that a step has at least: of its first few, one that fails would be too many.
    if new.failed > limits.errors * max(new.rows, limits.decisions):
        return f"{new.failed:g} of {new.rows:g} prompts failed, allowed are {limits.errors:.1%}"
    enough_calls = min(new.calls, serving.calls) >= max(FEWEST_CALLS, limits.decisions / 4)
    p95, usual = new.quantile(0.95), serving.quantile(0.95)
    if enough_calls and p95 > limits.latency * usual:
        return f"p95 of a call is {p95 * 1000:g} ms, with the serving version {usual * 1000:g} ms"
    moved = drift(new, serving)
    if min(new.decided, serving.decided) >= limits.decisions and moved > limits.drift:
        return f"{moved:.1%} of its decisions go to other models, allowed are {limits.drift:.1%}"
    return None


def drift(one: Traffic, other: Traffic) -> float:
    """The least share of one version's decisions, 0..1, that would have to move to be divided as the other's are.

    Each policy by itself: which policies are asked is the clients' doing, not a version's.
    """
    if not one.decided or not other.decided:
        return 0.0
    moved = 0.0
    for policy in {policy for policy, _ in one.decisions}:
        models, others = one.models(policy), other.models(policy)
        total, others_total = sum(models.values()), sum(others.values())
        if others_total:
            moved += sum(
                max(0.0, count - total * others.get(model, 0) / others_total) for model, count in models.items()
            )
    return moved / one.decided


def traffic_of(version: str, samples: Iterable[Any]) -> Traffic:
    """Read a version's traffic from samples (name, labels, value) of any number of routers."""
    rows: Counter[str] = Counter()
    seconds: Counter[float] = Counter()
    decisions: Counter[Key] = Counter()
    for sample in samples:
        labels = sample.labels
        if labels.get("version") != version:
            continue
        if sample.name == "llm_router_classified_rows_total":
            rows[labels["result"]] += sample.value
        elif sample.name == "llm_router_classify_seconds_bucket":
            seconds[float(labels["le"])] += sample.value
        elif sample.name == "llm_router_decisions_total" and labels["source"] in SCORED:
            decisions[labels["policy"], labels["model"]] += sample.value
    return Traffic(rows["ok"] + rows["failed"], rows["failed"], seconds, decisions)
