"""What the bench makes of its rounds: least CPU, spread, and latency over the upstream's own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadtest.bench.proxy import CONNECTIONS, Round, rows, table
from loadtest.bench.text import markdown
from loadtest.bench.wrk import Load, WrkError, parse

OUTPUT = """Running 1s test @ http://127.0.0.1:1/v1/chat/completions
  1 threads and 64 connections
Requests/sec:  14658.20

RESULT {"seconds": 1.25, "good": 1000, "refused": 3, "bad": 2, "broken": 1, "p50_us": 900, "p99_us": 4000}
BAD 500 {"error": "no"}
"""


def load(**fields: Any) -> Load:
    values: dict[str, Any] = {
        "seconds": 1.0,
        "good": 936,
        "refused": 0,
        "bad": 0,
        "broken": 0,
        "p50_us": 100,
        "p99_us": 200,
    }
    return Load(**(values | fields))


def a_round(cpu_s: float = 0.1, many: Load | None = None, one: Load | None = None) -> Round:
    return Round(cpu_s, many or load(), one or load())


def test_wrk_is_read_from_the_line_that_our_script_prints() -> None:
    read = parse(OUTPUT, cpu_s=0.5)
    assert (read.good, read.refused, read.bad, read.broken) == (1000, 3, 2, 1)
    assert (read.p50_us, read.p99_us, read.per_second, read.generator_share) == (900, 4000, 800.0, 0.4)
    assert read.example == '500 {"error": "no"}'


def test_wrk_without_a_result_is_an_error_that_shows_what_it_said() -> None:
    with pytest.raises(WrkError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1", cpu_s=0.0)


def test_a_request_cut_off_at_the_end_counts_as_answered() -> None:
    assert a_round(cpu_s=0.1, many=load(good=936)).cpu_us == pytest.approx(1e5 / (936 + CONNECTIONS))


def test_rows_take_the_least_cpu_and_the_latency_over_the_upstreams_own() -> None:
    measured = rows(
        {
            "direct": [a_round(0.0, one=load(p50_us=40, p99_us=90)), a_round(0.0, one=load(p50_us=50, p99_us=70))],
            "router": [a_round(0.2, one=load(p50_us=300, p99_us=500)), a_round(0.1, one=load(p50_us=240, p99_us=900))],
        },
        {"router": 80.0},
    )
    router = measured[1]
    assert (router.cpu_us, router.cpu_spread) == (100.0, 2.0)
    assert (router.added_p50_ms, router.added_p99_ms) == (0.2, 0.43)
    assert (router.memory_mb, router.answers) == (80.0, 4 * 936)


def test_what_was_wrong_is_summed_over_rounds_and_kept_as_an_example() -> None:
    bad = load(bad=2, broken=1, refused=4, example="500 no")
    (row,) = rows({"router": [a_round(many=bad), a_round(one=load(bad=1))]}, {})
    assert (row.bad, row.broken, row.refused, row.example) == (3, 1, 4, "500 no")
    assert math.isnan(row.added_p50_ms)  # nothing to compare with


def test_the_table_has_cpu_as_a_multiple_of_nginx() -> None:
    measured = rows({"direct": [a_round(0.0)], "nginx": [a_round(0.012)], "router": [a_round(0.09)]}, {})
    assert table(measured).splitlines()[-1].split("|")[1:4] == [" router ", "     90 ", "        7.5 "]


def test_markdown_aligns_its_columns() -> None:
    assert markdown(["", "n"], [["nginx", "12"], ["b", "1,000"]]).splitlines() == [
        "|       |     n |",
        "| ----- | ----: |",
        "| nginx |    12 |",
        "| b     | 1,000 |",
    ]
