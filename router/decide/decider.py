"""Which model answers: fixed → cache → classifier → fallback. The one place where these meet."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from router.decide.classification import Classification, Version
from router.decide.fit import plan
from router.decide.lanes import Lanes
from router.decide.policy import Choice, decide, expected_cost, unmet_needs
from router.decide.prompt import Prompt, texts_to_classify
from router.errors import ClassifierError, ConfigurationError
from router.settings import FixedPolicy, LabelPolicy, PolicySettings, Settings

logger = logging.getLogger("router.decide")

NO_POLICY = "none"

Asked = tuple[str, tuple[str, ...]]
"""A Triton model, and the labels that a policy has for its output; () where the model brings its own."""


class Decision(msgspec.Struct, frozen=True):
    """The model that answers and how that came about.

    `fallbacks` are the models that stand in for it. `source` is `none` (nothing to score), `classifier`, `cache` or
    `fallback`; only a fallback has a `fallback_reason`. `classifications` has one entry per scored turn, oldest first;
    `cache_hits` of them were known.
    """

    model: str
    reason: str
    policy: str
    label: str
    score: float | None = None
    source: str = "none"
    fallback_reason: str | None = None
    classifications: tuple[Classification, ...] = ()
    cache_hits: int = 0
    fallbacks: tuple[str, ...] = ()

    @property
    def classifier_version(self) -> Version | None:
        """The version that scored, None when nothing did."""
        return self.classifications[-1].version if self.classifications else None

    @property
    def task(self) -> str | None:
        """The likeliest task type of the last scored turn, None when nothing was scored or no head says it."""
        if not self.classifications or not self.classifications[-1].task_type:
            return None
        last = self.classifications[-1]
        return last.labels.task_types[last.task[0]]


def manual(model: str, label: str | None = None, policy: str = NO_POLICY) -> Decision:
    """Return the decision that the client has taken itself."""
    return Decision(model=model, reason="manual", policy=policy, label=label or model)


class Decider:
    """Takes a policy and a prompt, gives a `Decision`; `lanes` are those to each classifier that a policy needs."""

    def __init__(self, settings: Settings, lanes: Mapping[Asked, Lanes]) -> None:
        self._settings = settings
        self._lanes = lanes
        self._lanes_of = {policy.name: lanes[asked] for policy, asked in classifiers(settings)}
        self._fits: dict[tuple[str, Version], bool] = {}

    async def decide(
        self, chosen: PolicySettings | Decision, prompt: Prompt, nameable: Collection[str] | None = None
    ) -> Decision:
        """Decide for one prompt by a policy, or see whether the model that the client has chosen can take it.

        `nameable` are the models that an error may advise, None is all of them. Raises ContextLengthExceeded or
        UnsupportedCapability when no model can, and ClassifierError only when `triton.on_failure` is `reject`.
        """
        if isinstance(chosen, Decision):
            return self._planned(chosen, None, prompt, nameable)
        return self._planned(await self._by_policy(chosen, prompt), chosen, prompt, nameable)

    def _planned(
        self, decision: Decision, policy: PolicySettings | None, prompt: Prompt, nameable: Collection[str] | None
    ) -> Decision:
        """Return the decision with its fallbacks, and with another model when the chosen one cannot take the prompt."""
        planned = plan(decision.model, policy, prompt, self._settings.models, nameable)
        if planned.misfit is None:
            return replace(decision, fallbacks=planned.fallbacks) if planned.fallbacks else decision
        label = planned.model if decision.label == decision.model else decision.label
        return replace(decision, model=planned.model, reason=planned.misfit, label=label, fallbacks=planned.fallbacks)

    async def _by_policy(self, policy: PolicySettings, prompt: Prompt) -> Decision:
        if isinstance(policy, FixedPolicy):
            return Decision(policy.model, "fixed", policy.name, policy.model)
        texts = texts_to_classify(prompt.messages, policy.conversation, self._settings.triton.max_text_chars)
        if not texts:
            return self._default(policy, "no_text")
        scorer = self._lanes_of[policy.name].lane_of(prompt).scorer
        try:
            classifications, hits = await scorer.score(texts)
            choice = self._choose(policy, classifications, prompt)
        except ClassifierError as error:
            if self._settings.triton.on_failure == "reject":
                raise
            return self._default(policy, "fallback", error.reason)
        return Decision(
            model=choice.model,
            reason=choice.reason,
            policy=policy.name,
            label=choice.label,
            score=choice.score,
            source="cache" if hits == len(texts) else "classifier",
            cache_hits=hits,
            classifications=tuple(classifications),
        )

    def expected_cost(self, model: str, prompt: Prompt) -> float | None:
        """Return the dollars that this prompt is expected to cost there, None when the price is unknown."""
        return expected_cost(self._settings.models[model], prompt.estimated_tokens, prompt.max_output_tokens)

    async def check_contract(self) -> None:
        """Hold every policy against the labels of the model that serves it.

        Raises ConfigurationError when a policy needs what its model lacks, ClassifierError when Triton cannot say.
        """
        problems = []
        for policy, asked in classifiers(self._settings):
            for lane in self._lanes[asked]:
                problems += unmet_needs(policy, await lane.classifier.labels())
        if problems:
            raise ConfigurationError([f"{self._settings.source}: {problem}" for problem in problems])

    async def canary(self) -> None:
        """Score one fixed text past cache and batcher with every classifier, and hold the answers against the policies.

        Raises ClassifierError when one has no answer, or one that a policy cannot use.
        """
        served: dict[Asked, list[Classification]] = {}
        for asked, lanes in self._lanes.items():
            for lane in lanes:
                [result] = await lane.guard.classify(["Is the classifier alive?"])
                if isinstance(result, ClassifierError):
                    raise result
                served.setdefault(asked, []).append(result)
                lane.scorer.saw(result.version)
        for policy, asked in classifiers(self._settings):
            self._check_fit(policy, served[asked])

    async def close(self) -> None:
        """Stop the batchers; whoever still waits falls back."""
        for lanes in self._lanes.values():
            for lane in lanes:
                await lane.scorer.batcher.close()

    def _choose(self, policy: PolicySettings, classifications: Sequence[Classification], prompt: Prompt) -> Choice:
        self._check_fit(policy, classifications)
        return decide(policy, classifications, partial(self.expected_cost, prompt=prompt))

    def _check_fit(self, policy: PolicySettings, classifications: Sequence[Classification]) -> None:
        for served in classifications:
            if not self._fits_policy(policy, served):
                raise ClassifierError("contract", f"Policy '{policy.name}' needs what the served classifier lacks.")

    def _fits_policy(self, policy: PolicySettings, served: Classification) -> bool:
        key = (policy.name, served.version)
        if key not in self._fits:
            needs = unmet_needs(policy, served.labels)
            self._fits[key] = not needs
            for need in needs:
                logger.error("classifier version %s: %s", served.version, need)
        return self._fits[key]

    def _default(self, policy: PolicySettings, reason: str, fallback_reason: str | None = None) -> Decision:
        label = policy.default_label if isinstance(policy, LabelPolicy) else policy.default_model
        source = "fallback" if fallback_reason else "none"
        return Decision(
            policy.default_model, reason, policy.name, label, source=source, fallback_reason=fallback_reason
        )


def classifiers(settings: Settings) -> Iterator[tuple[PolicySettings, Asked]]:
    """Yield every policy that needs a score, and the classifier that gives it."""
    for policy in settings.policies.values():
        if isinstance(policy, LabelPolicy):
            yield policy, (policy.triton_model, tuple(label for label, _ in policy.llms))
        elif not isinstance(policy, FixedPolicy):
            yield policy, (settings.triton.model, ())
