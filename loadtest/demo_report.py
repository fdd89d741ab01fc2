"""The demo's table and summary: from rows to text, nothing measured here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from loadtest.demo_client import Price, Row

NOT_STREAMED = "¹"


def table(rows: Sequence[Row], prices: Mapping[str, Price], expensive: str) -> Table:
    """Return one line per row; `expensive` is the model whose price the last column assumes."""
    result = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, expand=True)
    result.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    for heading in ("score", "reason", "model"):
        justify = "right" if heading == "score" else "left"
        result.add_column(heading, no_wrap=True, justify=justify)  # type: ignore[arg-type]  # one of rich's two words
    for heading in ("first\ntoken ms", "router\nms", "\ndollars", f"if all\n{expensive.split('-')[0]}"):
        result.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        mark = "" if row.streamed else NOT_STREAMED
        result.add_row(
            Text(row.shown),  # not markup
            "-" if row.score is None else f"{row.score:.2f}",
            row.reason,
            row.model,
            f"{row.first_token_ms:,.0f}{mark}",
            "-" if row.overhead_ms is None else f"{row.overhead_ms:.1f}",
            _dollars(cost(row, prices.get(row.model))),
            _dollars(cost(row, prices.get(expensive))),
        )
    return result


def summary(
    rows: Sequence[Row],
    prices: Mapping[str, Price],
    *,
    cheap: str,
    expensive: str,
    batch: tuple[float, float],
) -> list[str]:
    """Return the lines under the table.

    `batch` is how many texts (user turns) Triton scored for these rows, and in how many executions.
    """
    chosen = sum(row.model == cheap for row in rows)
    lines = [f"share to {cheap}       {chosen} of {len(rows)} ({chosen / len(rows):.0%})"]
    lines.append(f"dollars saved            {_saved(rows, prices, expensive)}")
    overheads = sorted(row.overhead_ms for row in rows if row.overhead_ms is not None)
    if overheads:
        p50, p95 = statistics.median(overheads), overheads[max(0, -(-len(overheads) * 95 // 100) - 1)]
        lines.append(f"router overhead          p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    prompts, executions = batch
    size = f"{prompts / executions:.1f}" if executions else "unknown"
    lines.append(
        f"mean batch size          {size} ({prompts:.0f} user turns in {executions:.0f} executions, says Triton)"
    )
    return lines


def cost(row: Row, price: Price | None) -> float | None:
    """Return dollars for the row's tokens at this price, None when either is unknown."""
    return None if row.usage is None or price is None else row.usage.dollars(price)


def _saved(rows: Sequence[Row], prices: Mapping[str, Price], expensive: str) -> str:
    pairs = [(cost(row, prices.get(row.model)), cost(row, prices.get(expensive))) for row in rows]
    known = [(paid, baseline) for paid, baseline in pairs if paid is not None and baseline is not None]
    baseline = sum(pair[1] for pair in known)
    if not baseline:
        return "unknown: no row has both its tokens and its price"
    saved = baseline - sum(pair[0] for pair in known)
    missing = "" if len(known) == len(rows) else f"; {len(rows) - len(known)} rows of unknown cost left out"
    return f"${saved:.6f} of ${baseline:.6f} ({saved / baseline:.0%}) had {expensive} answered all{missing}"


def _dollars(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"
