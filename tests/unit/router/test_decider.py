"""Where policy, cache, classifier and fallback meet."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence

import msgspec
import pytest

from router.breaker import Breaker
from router.decide.batching import MicroBatcher
from router.decide.classification import Classification, Labels, Version
from router.decide.decider import Asked, Decider, Decision, classifiers, manual
from router.decide.lanes import Lane, Lanes
from router.decide.prompt import Prompt
from router.decide.scorer import ClassificationCache, Guard, Scorer
from router.decide.triton import Classifier, ClassifyResult
from router.errors import CLASSIFIER_FAILURES, ClassifierError, ConfigurationError
from router.settings import PolicySettings, Settings
from tests.unit.router.examples import (
    FIXED,
    LABELLED,
    LABELS,
    TASKS,
    TIERS,
    VALUE,
    classification,
    settings,
)
from tests.unit.router.virtual_time import run

EASY, HARD = classification(0.95, 0.95), classification(0.1, 0.9)


class FakeClassifier:
    """Says of each text what `says` has; as a whole it raises `broken` when that is set."""

    def __init__(self, says: dict[str, Classification] | None = None, labels: Labels = LABELS) -> None:
        self.says = says or {}
        self.served = labels
        self.broken: ClassifierError | None = None
        self.calls: list[list[str]] = []

    async def labels(self) -> Labels:
        if self.broken is not None:
            raise self.broken
        return self.served

    async def classify(self, texts: Sequence[str]) -> Sequence[ClassifyResult]:
        self.calls.append(list(texts))
        await asyncio.sleep(0.001)
        if self.broken is not None:
            raise self.broken
        unknown = ClassifierError("invalid_output", "not a text of this test")
        return [self.says.get(text, unknown) for text in texts]


def lane(classifier: Classifier, version: str = "") -> Lane:
    guard = Guard(classifier.classify, Breaker(failures_to_open=5, cooldown_s=1.0))
    batcher: MicroBatcher[Classification] = MicroBatcher(
        guard.classify, max_batch_size=8, max_queue_delay_s=0.001, max_waiting=10, max_in_flight=2
    )
    return Lane(classifier, guard, Scorer(batcher, ClassificationCache(100), guard, 0.05, Version(version) or None))


def decider(fake: FakeClassifier, configured: Settings | None = None) -> Decider:
    """A decider whose every policy asks the same fake."""
    configured = configured or settings()
    return Decider(configured, {asked: Lanes([(100, lane(fake))]) for _, asked in classifiers(configured)})


def chat(*turns: str) -> Prompt:
    return Prompt([{"role": "user", "content": turn} for turn in turns])


def decide(
    fake: FakeClassifier, policy: PolicySettings, prompt: Prompt, configured: Settings | None = None
) -> Decision:
    return run(decider(fake, configured).decide(policy, prompt))


def test_a_score_leads_to_a_model_and_is_kept_in_the_decision() -> None:
    decision = decide(FakeClassifier({"hi": HARD}), TIERS, chat("hi"))
    assert decision == Decision(
        model="dear",
        reason="threshold",
        policy="tiers",
        label="dear",
        score=HARD.need_strong,
        source="classifier",
        classifications=(HARD,),
    )
    assert decision.classifier_version == "1"


def test_the_second_time_the_cache_knows() -> None:
    async def main() -> list[Decision]:
        routes = decider(fake)
        return [await routes.decide(TIERS, chat("hi")) for _ in range(2)]

    fake = FakeClassifier({"hi": EASY})
    first, second = run(main())
    assert (first.source, second.source) == ("classifier", "cache")
    assert msgspec.structs.replace(second, source="classifier", cache_hits=0) == first
    assert fake.calls == [["hi"]]


def test_the_hardest_turn_decides_and_all_turns_are_shown_oldest_first() -> None:
    decision = decide(FakeClassifier({"hard": HARD, "thanks": EASY}), TIERS, chat("hard", "thanks"))
    assert decision.model == "dear"
    assert decision.classifications == (HARD, EASY)


def test_a_fixed_policy_asks_nobody() -> None:
    fake = FakeClassifier()
    assert decide(fake, FIXED, chat("hi")) == Decision("middle", "fixed", "fixed", "middle")
    assert fake.calls == []


def test_the_client_s_own_choice_is_a_decision_too() -> None:
    assert manual("cheap") == Decision("cheap", "manual", "none", "cheap")
    assert manual("cheap", "Chatbot", "tasks") == Decision("cheap", "manual", "tasks", "Chatbot")
    assert manual("cheap").classifier_version is None


def test_nothing_to_read_takes_the_default_without_being_a_fallback() -> None:
    fake = FakeClassifier()
    silent = Prompt([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
    assert decide(fake, TIERS, silent) == Decision("dear", "no_text", "tiers", "dear", source="none")
    assert decide(fake, LABELLED, silent).label == "Unknown"
    assert fake.calls == []


@pytest.mark.parametrize("reason", CLASSIFIER_FAILURES)
@pytest.mark.parametrize(
    ("policy", "model", "label"),
    [(TIERS, "dear", "dear"), (VALUE, "cheap", "cheap"), (TASKS, "middle", "middle"), (LABELLED, "cheap", "Unknown")],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_classifier_in_trouble_leads_to_the_policy_s_default(
    policy: PolicySettings, model: str, label: str, reason: str
) -> None:
    fake = FakeClassifier()
    fake.broken = ClassifierError(reason, "as the test wants it")
    decision = decide(fake, policy, chat("hi"))
    assert decision == Decision(
        model, "fallback", policy.name, label, score=None, source="fallback", fallback_reason=reason
    )
    assert decision.classifier_version is None


def test_one_bad_row_and_one_slow_call_are_fallbacks() -> None:
    assert decide(FakeClassifier(), TIERS, chat("unknown")).fallback_reason == "invalid_output"

    class SlowFakeClassifier(FakeClassifier):
        async def classify(self, texts: Sequence[str]) -> Sequence[ClassifyResult]:
            await asyncio.sleep(60)
            return []

    assert decide(SlowFakeClassifier(), TIERS, chat("hi")).fallback_reason == "deadline"


def test_failing_closed_raises_the_reason() -> None:
    fake = FakeClassifier()
    fake.broken = ClassifierError("unavailable", "down")
    with pytest.raises(ClassifierError) as refused:
        decide(fake, TIERS, chat("hi"), settings(on_failure="reject"))
    assert (refused.value.reason, refused.value.status, refused.value.retry_after_s) == ("unavailable", 503, 1)


def test_a_served_version_without_the_needed_head_is_never_routed_on_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    poor = classification(labels=Labels(task_types=LABELS.task_types), version="7")

    async def main() -> list[Decision]:
        routes = decider(FakeClassifier({"secret prompt": poor}))
        return [await routes.decide(TIERS, chat("secret prompt")) for _ in range(3)]

    with caplog.at_level(logging.INFO, logger="router.decide"):
        decisions = run(main())
    assert [decision.fallback_reason for decision in decisions] == ["contract"] * 3
    [record] = caplog.records
    assert "version 7" in record.getMessage()
    assert "policies.tiers" in record.getMessage()
    assert "secret" not in caplog.text


def test_after_a_promotion_all_turns_are_of_the_new_version() -> None:
    reasoning = dataclasses.replace(TIERS, score=(("reasoning", 1.0),))
    old = classification(labels=dataclasses.replace(LABELS, dimensions=()), version="1")
    new = classification(dimensions=0.9, version="2")

    async def main() -> list[str | None]:
        fake = FakeClassifier({"first": old})
        routes = decider(fake)
        before = await routes.decide(reasoning, chat("first"))
        fake.says = {"first": new, "second": new}
        promoted = await routes.decide(reasoning, chat("first", "second"))
        assert [c.version for c in promoted.classifications] == ["2", "2"]
        assert fake.calls == [["first"], ["second"], ["first"]]
        return [before.fallback_reason, promoted.fallback_reason]

    assert run(main()) == ["contract", None]


def test_the_canary_learns_of_a_promotion_while_every_request_is_a_cache_hit() -> None:
    async def main() -> list[str | None]:
        fake = FakeClassifier({"hi": classification(version="1")})
        routes = decider(fake)
        before = await routes.decide(TIERS, chat("hi"))
        fake.says = {"hi": classification(version="2"), "Is the classifier alive?": classification(version="2")}
        await routes.canary()
        after = await routes.decide(TIERS, chat("hi"))
        return [before.classifier_version, after.classifier_version]

    assert run(main()) == ["1", "2"]


def test_a_policy_that_the_served_model_cannot_satisfy_stops_the_start() -> None:
    fake = FakeClassifier(labels=Labels(task_types=("Chatbot",)))
    with pytest.raises(ConfigurationError) as stopped:
        run(decider(fake).check_contract())
    named = [problem.split(":")[1].strip() for problem in stopped.value.problems]
    assert named == ["policies.tiers", "policies.three-tiers", "policies.value", "policies.tasks"]
    assert all(problem.startswith("router.yaml: ") for problem in stopped.value.problems)

    run(decider(FakeClassifier()).check_contract())
    fake.broken = ClassifierError("unavailable", "down")
    with pytest.raises(ClassifierError, match="down"):
        run(decider(fake).check_contract())


def test_the_canary_asks_every_classifier_past_its_cache() -> None:
    async def main() -> None:
        well, ill = FakeClassifier(), FakeClassifier()
        ours, nvidias = dict.fromkeys(asked for _, asked in classifiers(settings()))
        routes = Decider(settings(), {ours: Lanes([(100, lane(well))]), nvidias: Lanes([(100, lane(ill))])})
        with pytest.raises(ClassifierError) as bad_row:
            await routes.canary()
        assert bad_row.value.reason == "invalid_output"
        [[question]] = well.calls
        well.says = ill.says = {question: EASY}
        for _ in range(2):
            await routes.canary()
        assert len(well.calls) == 3
        ill.broken = ClassifierError("unhealthy", "dead stub")
        with pytest.raises(ClassifierError, match="dead stub"):
            await routes.canary()

    run(main())


def test_closing_lets_whoever_waits_fall_back() -> None:
    async def main() -> Decision:
        routes = decider(FakeClassifier({"hi": HARD}))
        waiting = asyncio.create_task(routes.decide(TIERS, chat("hi")))
        await asyncio.sleep(0)
        await routes.close()
        return await waiting

    assert run(main()).fallback_reason == "unavailable"


def test_the_expected_cost_is_the_prompt_s_at_that_model() -> None:
    routes = decider(FakeClassifier())
    prompt = Prompt([{"role": "user", "content": "x" * 400}], max_output_tokens=10)
    assert routes.expected_cost("cheap", prompt) == pytest.approx((104 * 1.0 + 10 * 2.0) / 1e6)
    assert routes.expected_cost("unpriced", prompt) is None


def test_a_longer_prompt_makes_the_dear_model_s_extra_cost_outweigh_the_gain() -> None:
    gain = classification(0.5, 0.9)
    fake = FakeClassifier({"short": gain, "x" * 16384: gain})
    assert decide(fake, VALUE, chat("short")).model == "dear"
    assert decide(fake, VALUE, chat("x" * 40_000)).model == "cheap"


def test_a_conversation_keeps_its_version_and_its_turns_are_never_scored_by_two() -> None:
    async def main() -> None:
        old, new = FakeClassifier(), FakeClassifier()
        for version, fake in (("1", old), ("2", new)):
            fake.says = {text: classification(version=version) for text in map(str, range(100))}
        shared: dict[Asked, Lanes] = {("prompt_classifier", ()): Lanes([(70, lane(old, "1")), (30, lane(new, "2"))])}
        decider = Decider(settings({TIERS.name: TIERS}), shared)
        first = {text: (await decider.decide(TIERS, chat(text))).classifier_version for text in map(str, range(100))}
        assert set(first.values()) == {"1", "2"}
        for text, kept in first.items():
            longer = await decider.decide(TIERS, chat(text, *map(str, range(8))))
            assert {one.version for one in longer.classifications} == {kept}
        await decider.close()

    run(main())


def test_every_version_that_gets_a_share_is_held_against_the_policies() -> None:
    lacking = FakeClassifier(labels=dataclasses.replace(LABELS, outcomes=()))
    shared: dict[Asked, Lanes] = {
        ("prompt_classifier", ()): Lanes([(90, lane(FakeClassifier(), "1")), (10, lane(lacking, "2"))])
    }

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="outcome"):
            await Decider(settings({TIERS.name: TIERS}), shared).check_contract()

    run(main())
