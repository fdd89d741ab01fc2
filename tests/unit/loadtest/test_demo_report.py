from io import StringIO

import pytest
from rich.console import Console

from loadtest.demo_client import Price, Row, Usage
from loadtest.demo_prompts import demo_prompts
from loadtest.demo_report import cost, summary, table
from loadtest.labelled_set import labelled_prompts

THOUSAND_EACH = Usage(1000, 1000)
PRICES = {"cheap-sim": Price(0.5, 1.0), "expensive-sim": Price(5.0, 10.0)}


def row(model="cheap-sim", shown="Hi there", score=0.125, overhead_ms=2.0, usage=THOUSAND_EACH, streamed=True):
    return Row(shown, streamed, score, "threshold", model, 61.4, overhead_ms, usage)


def lines(rows, prices=PRICES, batch=(6, 2)):
    result = summary(rows, prices, cheap="cheap-sim", expensive="expensive-sim", batch=batch)
    return dict(line.split("  ", 1) for line in result)


def rendered(rows, width, prices=PRICES):
    out = StringIO()
    Console(file=out, width=width).print(table(rows, prices, "expensive-sim"))
    return out.getvalue()


def test_costs():
    assert cost(row(), PRICES["cheap-sim"]) == pytest.approx(0.0015)
    assert cost(row(), None) is None
    assert cost(row(usage=None), PRICES["cheap-sim"]) is None


def test_the_summary_adds_up():
    told = lines([row(), row(), row(), row("expensive-sim", overhead_ms=12.0)])
    assert told["share to cheap-sim"].strip() == "3 of 4 (75%)"
    assert told["dollars saved"].strip() == "$0.040500 of $0.060000 (68%) had expensive-sim answered all"
    assert told["router overhead"].strip() == "p50 2.0 ms, p95 12.0 ms"
    assert told["mean batch size"].strip() == "3.0 (6 user turns in 2 executions, says Triton)"


def test_what_is_unknown_is_said_and_not_counted():
    told = lines([row(), row(usage=None, overhead_ms=None)], batch=(0, 0))
    assert told["dollars saved"].endswith("; 1 rows of unknown cost left out")
    assert told["mean batch size"].strip().startswith("unknown")
    assert "unknown" in lines([row()], prices={})["dollars saved"]
    text = rendered([row(score=None, usage=None)], 140)
    assert text.count("unknown") == 2


@pytest.mark.parametrize("width", [80, 100, 140, 220])
def test_the_table_keeps_every_figure_at_every_width(width):
    text = rendered([row("expensive-sim", "A very long prompt " * 20, streamed=False)], width)
    line = next(line for line in text.splitlines() if line.startswith("A very"))
    assert line.split()[-7:] == ["0.12", "threshold", "expensive-sim", "61¹", "2.0", "0.015000", "0.015000"]
    assert max(map(len, text.splitlines())) <= width


def test_the_demo_shows_a_mixed_set():
    prompts = demo_prompts()
    assert len(prompts) >= 24
    assert len({prompt.shown for prompt in prompts}) == len(prompts)
    assert 4 <= sum(not prompt.stream for prompt in prompts) < len(prompts) / 2
    assert any(len(prompt.messages) > 1 for prompt in prompts)
    sent = {str(prompt.messages[0]["content"]) for prompt in prompts if len(prompt.messages) == 1}
    of_the_set = [prompt for prompt in labelled_prompts() if prompt.turns[-1] in sent]
    assert len({prompt.task_type for prompt in of_the_set}) == 11
    assert {prompt.difficulty for prompt in of_the_set} == {"easy", "medium", "hard"}
    assert {"tools", "response_format"} <= {name for prompt in prompts for name, _ in prompt.fields}
