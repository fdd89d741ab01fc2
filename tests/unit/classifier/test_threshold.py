import json
from pathlib import Path

import numpy as np
import pytest

from classifier.data import Line
from classifier.errors import DataError
from classifier.scored import Price, Prices, Scored, scored
from classifier.threshold import calibrate, for_cost, for_quality, for_strong_share
from tests.unit.classifier.test_evaluate import run

PRICES = Prices(Price(0.15, 0.6), Price(2.5, 10), output_tokens=200)


def sample(rows: int = 1000, *, outcomes: bool = True, seed: int = 0) -> Scored:
    """A weak model that fails as often as the score says, and a strong one that always succeeds."""
    rng = np.random.default_rng([seed, 7])  # not the numbers that deal the rows to the halves
    lines = []
    for number, hard in enumerate(rng.random(rows).tolist()):
        fields: dict[str, object] = {"score": hard, "prompt": f"prompt {number} " + "x" * 400}
        if outcomes:
            fields |= {"weak_score": float(rng.random() > hard), "strong_score": 1.0}
        lines.append(Line(Path("sample"), number + 1, fields))
    return scored(lines)


def test_a_share_of_strong_calls_needs_no_outcomes() -> None:
    found = calibrate(sample(outcomes=False), "score", for_strong_share(0.3))
    share = found.expected["strong_share"]
    assert found.threshold == pytest.approx(0.7, abs=0.05)
    assert share.low <= 0.3 <= share.high
    assert set(found.expected) == {"strong_share"}


def test_a_quality_is_reached_with_the_confidence_asked_for() -> None:
    """Sampled anew many times, new prompts must fall short of the target rarely, and not by going all strong."""
    new = sample(50_000, seed=99)
    short, shares = 0, []
    for seed in range(60):
        found = calibrate(sample(seed=seed), "score", for_quality(0.9, confidence=0.9), rounds=1, seed=seed)
        strong_call = new.scores["score"] >= found.threshold
        short += np.where(strong_call, new.strong, new.weak).mean() < 0.9
        shares.append(strong_call.mean())
    assert short <= 12
    assert np.mean(shares) < 0.75  # the truth is 1 - sqrt(0.2) = 0.553


def test_a_cost_is_not_passed_and_used_up() -> None:
    found = calibrate(sample(), "score", for_cost(1.2, PRICES), prices=PRICES)
    spent = found.expected["dollars_per_1k"]
    assert spent.low <= 1.2 <= spent.high
    assert spent.value < found.expected["dollars_per_1k_always_strong"].value


def test_prompts_of_one_score_that_would_cost_too_much_all_stay_cheap() -> None:
    ties = sample()
    ties.scores["score"].round(1, out=ties.scores["score"])
    found = for_cost(1.2, PRICES)(ties.scores["score"], ties)
    cheap, dear = ties.dollars(PRICES)
    spent = [np.where(ties.scores["score"] >= least, dear, cheap).mean() * 1000 for least in (found, found - 0.1)]
    assert spent[0] <= 1.2 < spent[1]


@pytest.mark.parametrize(
    ("choose", "rows", "message"),
    [
        (for_cost(0.0001, PRICES), 1000, r"always the cheap model costs \$0\.\d+ a thousand prompts already"),
        (for_strong_share(0.3), 99, "99 rows can be used, at least 100 are needed"),
    ],
)
def test_what_cannot_be_reached_is_said(choose, rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrate(sample(rows), "score", choose)


def test_where_the_strong_model_is_no_better_there_is_nothing_to_route() -> None:
    lines = [
        Line(Path("s"), n, {"score": n / 200, "weak_score": 1.0, "strong_score": 1.0, "prompt": str(n)})
        for n in range(200)
    ]
    with pytest.raises(DataError, match="no better than the cheap one's"):
        calibrate(scored(lines), "score", for_quality(0.95, 0.95))


def test_extreme_targets_send_all_or_nothing() -> None:
    everything = sample(400)
    assert calibrate(everything, "score", for_strong_share(0.999999)).expected["strong_share"].value == pytest.approx(
        1, abs=0.02
    )
    assert calibrate(everything, "score", for_strong_share(0.000001)).expected["strong_share"].value == pytest.approx(
        0, abs=0.02
    )


def test_the_command_prints_a_policy_that_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    rng = np.random.default_rng(1)
    path.write_text("\n".join(json.dumps({"score": value, "prompt": f"{value}"}) for value in rng.random(300).tolist()))
    done = run(
        "calibrate", "--scores", str(path), "--score", "score", "--target-strong-share", "0.25", "--bootstrap", "50"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert f"- {{model: expensive, from: {document['threshold']}}}" in done.stdout
    assert document["threshold"] == pytest.approx(0.75, abs=0.08)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-cost-per-1k", "1"], "--max-cost-per-1k needs --price-weak and --price-strong"),
        (["--target-quality", "95"], "'95' is not a share between 0 and 1"),
        (["--target-strong-share", "0.3", "--price-weak", "cheap"], "'cheap' is not IN/OUT in dollars"),
        (["--target-strong-share", "0.3", "--price-weak", "1/2"], "give both --price-weak and --price-strong"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({"score": 0.5}))
    done = run("calibrate", "--scores", str(tmp_path / "s.jsonl"), *arguments)
    assert done.returncode != 0
    assert message in done.stderr
