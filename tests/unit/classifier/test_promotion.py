"""What decides about a promotion, without a Triton: the gate, the judgement of a canary, the repository's files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.canary import Limits, Traffic, drift, objection, traffic_of
from classifier.data import Line
from classifier.errors import DataError, PromotionError, VersionError
from classifier.gate import compare, lost_heads
from classifier.promote import serving_version
from classifier.render_config import all_configs, spec_line
from classifier.repository import Repository, Shares
from classifier.scored import Scored, scored
from tests.tiny_classifier import TRITON_MODELS

RNG = np.random.default_rng(4)
HARD = RNG.random(400)
WEAK = (RNG.random(400) > HARD).astype(float)
LENGTHS = RNG.integers(5, 50, 400)
LIMITS = Limits(decisions=100)


def judged(score: np.ndarray, strong: float = 1.0) -> Scored:
    return scored(
        [
            Line(Path("x"), n, {"need_strong": one, "weak_score": weak, "strong_score": strong, "length": int(length)})
            for n, (one, weak, length) in enumerate(zip(score.tolist(), WEAK.tolist(), LENGTHS, strict=True))
        ]
    )


def test_a_telling_candidate_may_replace_one_like_it() -> None:
    verdict = compare(judged(HARD), judged(HARD + 0.01 * RNG.random(400)), margin=0.02, rounds=200)
    assert verdict.objections == ()
    assert verdict.differences["prompt length"].low > 0


def test_a_candidate_without_information_does_not_beat_length() -> None:
    [first, second] = compare(judged(RNG.random(400)), judged(HARD), margin=0.02, rounds=200).objections
    assert first.startswith("it does not beat prompt length for certain: APGR ")
    assert second.startswith("it may be worse than the serving version: APGR -")


def test_few_rows_leave_open_whether_a_candidate_is_worse() -> None:
    few = np.arange(400) < 40
    noisy = HARD + 0.3 * RNG.random(400)
    [*_, last] = compare(judged(noisy).rows(few), judged(HARD).rows(few), margin=0.02, rounds=200).objections
    assert "more held-out prompts narrow the interval" in last


def test_outcomes_that_tell_nothing_are_refused() -> None:
    ties = judged(HARD)
    ties.strong[:] = ties.weak
    with pytest.raises(DataError, match="nothing tells a good router from a bad one"):
        compare(ties, ties, margin=0.02)


def test_a_head_must_not_be_lost() -> None:
    assert lost_heads({"outcomes": ["a"], "dimensions": None}, {"outcomes": ["a"], "dimensions": ["b"]}) == [
        "dimensions"
    ]


def traffic(failed: float = 0, slow: float = 0, strong: float = 0.3, n: float = 1000) -> Traffic:
    seconds = {0.005: n * (1 - slow), 0.1: n, float("inf"): n}
    return Traffic(n, failed, seconds, {("p", "cheap"): n * (1 - strong), ("p", "expensive"): n * strong})


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (traffic(), None),
        (traffic(failed=10), None),
        (traffic(failed=11), "11 of 1000 prompts failed, allowed are 1.0%"),
        (traffic(failed=1, n=1), None),
        (traffic(failed=2, n=2), "2 of 2 prompts failed, allowed are 1.0%"),
        (traffic(slow=0.04), None),
        (traffic(slow=0.06), "p95 of a call is 100 ms, with the serving version 5 ms"),
        (traffic(slow=0.9, n=20), None),
        (traffic(strong=0.44), None),
        (traffic(strong=0.46), "16.0% of its decisions go to other models, allowed are 15.0%"),
        (traffic(strong=1.0, n=99), None),
        (Traffic(), None),
    ],
)
def test_a_canary_is_judged(new: Traffic, reason: str | None) -> None:
    assert objection(new, traffic(), LIMITS) == reason


@pytest.mark.parametrize(("calls", "judged"), [(19, False), (20, True)])
def test_a_p95_of_a_handful_of_calls_is_not_judged(calls: int, judged: bool) -> None:
    slow = traffic(slow=0.9, n=calls)
    assert (objection(slow, traffic(), Limits(drift=1, decisions=4)) is not None) is judged


def test_drift_is_the_share_that_would_have_to_move() -> None:
    assert drift(traffic(strong=0.3), traffic(strong=0.3)) == 0
    assert drift(traffic(strong=0.3), traffic(strong=0.5)) == pytest.approx(0.2)
    assert drift(traffic(strong=0.0), traffic(strong=1.0)) == pytest.approx(1)


def test_a_policy_that_is_asked_more_often_is_no_drift() -> None:
    usual = Traffic(
        decisions={("a", "cheap"): 300, ("a", "expensive"): 100, ("b", "cheap"): 50, ("b", "expensive"): 150}
    )
    asked_otherwise = Traffic(
        decisions={("a", "cheap"): 75, ("a", "expensive"): 25, ("b", "cheap"): 100, ("b", "expensive"): 300}
    )
    assert drift(asked_otherwise, usual) == pytest.approx(0)
    moved = Traffic(decisions={("a", "cheap"): 50, ("a", "expensive"): 50, ("b", "cheap"): 25, ("b", "expensive"): 75})
    assert drift(moved, usual) == pytest.approx(25 / 200)


def test_traffic_is_read_by_version_over_routers_and_counted_from_a_moment() -> None:
    def sample(name: str, value: float, **labels: str) -> SimpleNamespace:
        return SimpleNamespace(name=f"llm_router_{name}", value=value, labels=labels)

    page = [
        sample("classified_rows_total", 8, version="2", result="ok"),
        sample("classified_rows_total", 2, version="2", result="failed"),
        sample("classified_rows_total", 5, version="1", result="ok"),
        sample("classify_seconds_bucket", 3, version="2", le="0.01"),
        sample("classify_seconds_bucket", 4, version="2", le="+Inf"),
        sample("decisions_total", 6, version="2", policy="p", model="cheap", source="cache"),
        sample("decisions_total", 7, version="2", policy="p", model="cheap", source="classifier"),
        sample("decisions_total", 9, version="none", policy="p", model="cheap", source="fallback"),
    ]
    once, twice = traffic_of("2", page), traffic_of("2", [*page, *page])
    assert (once.rows, once.failed, once.calls, once.decided) == (10, 2, 4, 13)
    assert twice.since(once) == once
    assert once.since(twice).rows == 0  # a restart


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    model = tmp_path / "prompt_classifier"
    shutil.copytree(
        TRITON_MODELS / "prompt_classifier", model, ignore=shutil.ignore_patterns("*.onnx", "tokenizer.json")
    )
    return Repository(model, "cpu")


def test_a_second_version_is_served_with_its_own_spec_and_taken_out_again(repository: Repository) -> None:
    before = repository.config.read_text()
    [serving] = repository.served()
    candidate = repository.add(copy_of(repository, serving))
    spec = {**json.loads((repository.model / candidate / "spec.json").read_text()), "name": "new"}
    (repository.model / candidate / "spec.json").write_text(json.dumps(spec))
    repository.serve(serving, [candidate])
    both = repository.config.read_text()
    assert repository.served() == [serving, candidate]
    assert spec_line(spec, f"spec_{candidate}") in both
    assert spec_line(repository.spec(serving)) in both
    repository.serve(serving, [])
    assert repository.config.read_text() == before


def test_a_config_of_two_versions_is_one_that_triton_reads(repository: Repository) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    [serving] = repository.served()
    candidate = repository.add(copy_of(repository, serving))
    repository.serve(serving, [candidate])
    config = text_format.Parse(repository.config.read_text(), model_config_pb2.ModelConfig())
    assert list(config.version_policy.specific.versions) == [int(serving), int(candidate)]
    assert {"spec", f"spec_{candidate}"} <= set(config.parameters)


def test_other_configs_stay_as_they_are(repository: Repository) -> None:
    others = {path: path.read_text() for path in all_configs(repository.model) if path != repository.config}
    assert others
    [serving] = repository.served()
    repository.serve(serving, [repository.add(copy_of(repository, serving))])
    assert {path: path.read_text() for path in others} == others


def copy_of(repository: Repository, version: str) -> Path:
    return Path(shutil.copytree(repository.model / version, repository.model.parent / "candidate"))


def test_a_number_is_never_used_twice(repository: Repository) -> None:
    candidate = copy_of(repository, repository.served()[0])
    first, second = repository.add(candidate), repository.add(candidate)
    assert int(second) == int(first) + 1
    assert repository.add(repository.model / first) == first


@pytest.mark.parametrize(
    ("text", "shares"),
    [("1\n", Shares("1", "1", 100)), ("1=90, 2=10", Shares("1", "2", 10)), ("1=0, 2=100", Shares("1", "2", 100))],
)
def test_shares_are_read_as_they_are_written(text: str, shares: Shares, repository: Repository) -> None:
    (repository.model / "shares").write_text(text)
    assert repository.shares() == shares
    repository.write_shares(shares)
    assert repository.shares() == shares


@pytest.mark.parametrize(("text", "version"), [("1", "1"), ("1=0, 2=100", "2"), ("1=100, 2=0", "1")])
def test_the_serving_version_is_the_one_that_takes_all(text: str, version: str, repository: Repository) -> None:
    (repository.model / "shares").write_text(text)
    assert serving_version(repository) == version


def test_a_canary_under_way_must_be_ended_first(repository: Repository) -> None:
    (repository.model / "shares").write_text("1=90, 2=10")
    with pytest.raises(PromotionError, match=r"a canary is under way \(1=90, 2=10\): end it with .* rollback"):
        serving_version(repository)


def test_files_that_are_not_as_expected_are_named(repository: Repository) -> None:
    (repository.model / "shares").write_text("all to the new one")
    with pytest.raises(VersionError, match=r"shares holds 'all to the new one'; allowed are one or two versions"):
        repository.shares()
    with pytest.raises(VersionError, match=r"gpu\.pbtxt is missing"):
        Repository(repository.model, "gpu").served()
