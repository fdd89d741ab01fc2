"""Requests of every size, and the pictures of what they cost."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from loadtest.bench.growth import BODY_LIMIT, Crowd, Size, bodies, plots
from loadtest.bench.plot import Line, decades, log_log


def test_sizes_grow_within_each_kind_up_to_the_bodys_limit() -> None:
    lengths: dict[str, list[int]] = {}
    for kind, _, request in bodies(is_quick=False):
        lengths.setdefault(kind, []).append(len(json.dumps(request)))
    assert all(sizes == sorted(set(sizes)) for sizes in lengths.values())
    assert BODY_LIMIT * 0.99 < max(sizes[-1] for sizes in lengths.values()) <= BODY_LIMIT


def test_a_quick_run_keeps_the_ends() -> None:
    ends = {kind: size for kind, size, _ in bodies(is_quick=True)}
    assert ends == {kind: size for kind, size, _ in bodies(is_quick=False)}


def test_decades_are_around_all_values_and_never_one_and_the_same() -> None:
    assert decades([3, 40, 900]) == (0, 3)
    assert decades([10, 10]) == (1, 2)
    assert decades([]) == (0, 1)


def test_a_point_is_where_its_logarithm_says() -> None:
    picture = log_log("a < b", "x", "y", [Line("one", [1, 10, 100], [1, 10, 100])])
    circles = [node for node in ElementTree.fromstring(picture).iter() if node.tag.endswith("circle")][:3]
    across = [float(circle.get("cx", "nan")) for circle in circles]
    up = [float(circle.get("cy", "nan")) for circle in circles]
    assert across[1] - across[0] == across[2] - across[1] > 0
    assert up[0] - up[1] == up[1] - up[2] > 0


def test_zero_has_no_place_on_a_logarithmic_axis_and_breaks_the_line() -> None:
    line = Line("refused all for a while", [1, 10, 100, 1000], [5, 6, 0, 7])
    assert line.points == [(1, 5), (10, 6), (1000, 7)]
    assert line.stretches == [[(1, 5), (10, 6)], [(1000, 7)]]
    assert "<path" not in log_log("t", "x", "y", [Line("none", [1], [0])])


def test_each_target_has_its_lines() -> None:
    crowds = [Crowd(name, n, 100.0 * n, 1.0, 2.0, 80.0, 0, 0) for name in ("nginx", "router") for n in (1, 64)]
    sizes = [Size("router", "bytes of an image", n, n + 100, 10.0, n / 10, 0) for n in (1000, 30_000)]
    drawn = plots(crowds, sizes)
    assert [picture.count('<path class="line"') for picture in drawn.values()] == [2, 4, 1]
