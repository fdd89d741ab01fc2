"""What a load test counts: answers, errors, tokens, decisions, and how long everything took. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from loadtest.load.distribution import Distribution


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer. Durations in seconds; what the server did not tell is None.

    `ttft_s` and `gaps_s` (between one token's event and the next) are of streams only.
    """

    endpoint: str
    model: str
    e2e_s: float
    ttft_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    overhead_s: float | None = None
    reason: str = "unknown"
    source: str = "unknown"

    @property
    def tpot_s(self) -> float | None:
        """Seconds for each token after the first, None for a single one."""
        if self.ttft_s is None or not self.completion_tokens or self.completion_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.completion_tokens - 1)


@dataclass(frozen=True, slots=True)
class Objective:
    """An answer is good when it begins and ends in time; seconds."""

    ttft_s: float
    e2e_s: float

    def met_by(self, answer: Answer) -> bool:
        """Return whether the answer counts as goodput; one that is not streamed has no first token to be late."""
        return answer.e2e_s <= self.e2e_s and (answer.ttft_s is None or answer.ttft_s <= self.ttft_s)


@dataclass(slots=True)
class Tally:
    """Counts by (name, label, ...) and distributions by (name, label). Sums of tallies are tallies.

    counts: (answers, endpoint, model), (errors, endpoint, type), (decisions, reason), (sources, source),
    (tokens, model, kind), (usage_unknown, model), (good,), (reconnects,)
    distributions: (e2e | ttft | itl | tpot | overhead, model); of the generator (cpu, ""), (lag, ""), (late, "")
    """

    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    distributions: dict[tuple[str, str], Distribution] = field(default_factory=dict)

    def answered(self, answer: Answer, objective: Objective) -> None:
        """Count one answer."""
        counts, model = self.counts, answer.model
        counts["answers", answer.endpoint, model] += 1
        counts["decisions", answer.reason] += 1
        counts["sources", answer.source] += 1
        counts["good",] += objective.met_by(answer)
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            counts["usage_unknown", model] += 1
        else:
            counts["tokens", model, "prompt"] += answer.prompt_tokens
            counts["tokens", model, "completion"] += answer.completion_tokens
        self.observe("e2e", answer.e2e_s, model)
        self.observe("ttft", answer.ttft_s, model)
        self.observe("tpot", answer.tpot_s, model)
        self.observe("overhead", answer.overhead_s, model)
        for gap in answer.gaps_s:
            self.observe("itl", gap, model)

    def failed(self, endpoint: str, error_type: str) -> None:
        """Count one request that got no complete answer."""
        self.counts["errors", endpoint, error_type] += 1

    def reconnected(self) -> None:
        """Count one request that was sent again because its idle connection had been closed."""
        self.counts["reconnects",] += 1

    def observe(self, name: str, value: float | None, label: str = "") -> None:
        """Add a value to a distribution; None adds nothing."""
        if value is None:
            return
        found = self.distributions.get((name, label))
        if found is None:
            found = self.distributions[name, label] = Distribution()
        found.add(value)

    def merge(self, other: Tally) -> None:
        """Take in another tally."""
        self.counts.update(other.counts)
        for key, distribution in other.distributions.items():
            self.distributions.setdefault(key, Distribution()).merge(distribution)

    def total(self, name: str, *labels: str) -> int:
        """Return the sum of all counts whose key begins so."""
        prefix = (name, *labels)
        return sum(count for key, count in self.counts.items() if key[: len(prefix)] == prefix)

    def by_label(self, name: str, position: int = 1) -> dict[str, int]:
        """Return the sums of a count by one of its labels, the largest first."""
        sums: Counter[str] = Counter()
        for key, count in self.counts.items():
            if key[0] == name:
                sums[key[position]] += count
        return dict(sums.most_common())

    def over(self, name: str) -> Distribution:
        """Return a distribution with the values of all labels."""
        together = Distribution()
        for (found, _label), distribution in self.distributions.items():
            if found == name:
                together.merge(distribution)
        return together

    def to_wire(self) -> dict[str, Any]:
        """Return plain lists and numbers, for a message from worker to master."""
        return {
            "counts": [[*key, count] for key, count in self.counts.items()],
            "distributions": [[*key, one.to_wire()] for key, one in self.distributions.items()],
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """Read what `to_wire` wrote."""
        return cls(
            Counter({tuple(key): count for *key, count in wire["counts"]}),
            {(name, label): Distribution.from_wire(one) for name, label, one in wire["distributions"]},
        )


def sum_of(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total
