"""Which server of a model is asked, and where a request goes when that fails. A clock that the test moves."""

from __future__ import annotations

import dataclasses

import pytest

from router.errors import (
    UpstreamConnect,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTTFTTimeout,
    UpstreamUnavailable,
)
from router.metrics import Metrics
from router.settings import Replica, UpstreamSettings
from router.upstream.attempts import Attempts
from router.upstream.replicas import Endpoint, Replicas
from tests.unit.router.examples import MODELS

DEFAULT = UpstreamSettings()
BROKEN = UpstreamProtocol("broke off")


def refused(status: int, pause: float | None = None) -> UpstreamRefused:
    return UpstreamRefused("refused", status, [], b"{}", pause)


class Cluster:
    """Models with so many replicas each, and a clock."""

    def __init__(self, limits: UpstreamSettings = DEFAULT, **replicas: int) -> None:
        self.now = 1000.0
        self.metrics = Metrics()
        self.models = {
            name: Replicas(
                dataclasses.replace(MODELS[name], replicas=tuple(Replica(f"http://{name}-{i}") for i in range(count))),
                limits,
                self.metrics,
                lambda: self.now,
            )
            for name, count in replicas.items()
        }

    def attempts(self, *names: str) -> Attempts:
        return Attempts([self.models[name] for name in names or self.models])

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"llm_router_{name}", labels)


def base(endpoint: Endpoint | None) -> str:
    return endpoint.target.origin.host if endpoint else "nobody"


def fail(cluster: Cluster, error: UpstreamError, times: int, *models: str) -> None:
    for _ in range(times):
        cluster.attempts(*models).first().failed(error)


def test_equal_servers_take_turns() -> None:
    cluster = Cluster(cheap=3)
    asked = [base(cluster.attempts().first()) for _ in range(6)]
    assert sorted(asked[:3]) == sorted(asked[3:]) == ["cheap-0", "cheap-1", "cheap-2"]


def test_the_one_with_the_fewest_requests_under_way_is_asked() -> None:
    cluster = Cluster(cheap=2)
    busy = cluster.attempts().first()
    with busy, busy:
        assert cluster.value("upstream_in_flight_requests", model="cheap", replica="2") == 2
        others = [cluster.attempts().first() for _ in range(4)]
        assert busy not in others
        with others[0], others[0], others[0]:
            assert cluster.attempts().first() is busy
    assert busy.in_flight == 0
    assert cluster.value("upstream_in_flight_requests", model="cheap", replica="2") == 0


@pytest.mark.parametrize("error", [BROKEN, UpstreamConnect("refused"), refused(500), refused(408)])
def test_a_server_that_keeps_failing_is_left_alone_and_tried_once_in_a_while(error: UpstreamError) -> None:
    cluster = Cluster(cheap=1)
    fail(cluster, error, 5)
    assert cluster.value("upstream_breaker_state", model="cheap", replica="1") == 2
    with pytest.raises(UpstreamUnavailable) as caught:
        cluster.attempts().first()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    cluster.now += 1
    probe = cluster.attempts().first()
    assert cluster.value("upstream_breaker_state", model="cheap", replica="1") == 1
    with pytest.raises(UpstreamUnavailable):  # one attempt at a time
        cluster.attempts().first()
    probe.began()
    assert cluster.value("upstream_breaker_state", model="cheap", replica="1") == 0
    assert cluster.attempts().first() is probe


def test_answers_in_between_keep_the_breaker_closed() -> None:
    cluster = Cluster(cheap=1)
    for _ in range(10):
        fail(cluster, BROKEN, 4)
        cluster.attempts().first().succeeded()
    assert cluster.attempts().first()


def test_a_beginning_alone_does_not_forgive_streams_that_never_end() -> None:
    cluster = Cluster(cheap=1)
    for _ in range(5):
        endpoint = cluster.attempts().first()
        endpoint.began()
        endpoint.failed(BROKEN)
    with pytest.raises(UpstreamUnavailable):
        cluster.attempts().first()


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_clients_own_fault_is_no_failure_of_the_server(status: int) -> None:
    cluster = Cluster(cheap=1)
    fail(cluster, refused(status), 100)
    assert cluster.attempts().first()


@pytest.mark.parametrize(
    ("status", "asked", "most", "rest"),
    [
        (429, 7.0, 60.0, 7.0),
        (429, 500.0, 60.0, 60.0),
        (429, None, 60.0, 1.0),
        (503, 3.0, 60.0, 3.0),
        (429, 7, 0.0, 0.0),
    ],
)
def test_a_pause_that_was_asked_for_is_kept_up_to_the_limit(
    status: int, asked: float | None, most: float, rest: float
) -> None:
    cluster = Cluster(UpstreamSettings(max_cooldown_s=most), cheap=1)
    fail(cluster, refused(status, asked), 1)
    if rest:
        cluster.now += rest - 0.5
        with pytest.raises(UpstreamRateLimited) as caught:
            cluster.attempts().first()
        assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
        cluster.now += 0.5
    assert cluster.attempts().first()
    assert cluster.value("upstream_breaker_state", model="cheap", replica="1") == 0


def test_a_server_that_rests_leaves_the_work_to_the_others() -> None:
    cluster = Cluster(cheap=2)
    first = cluster.attempts().first()
    first.failed(refused(429, 30))
    assert {base(cluster.attempts().first()) for _ in range(5)} == {
        "cheap-0" if base(first) == "cheap-1" else "cheap-1"
    }


def test_a_failure_is_repeated_at_another_server_then_the_models_behind_it() -> None:
    cluster = Cluster(cheap=2, middle=1, dear=2)
    attempts = cluster.attempts()
    first = attempts.first()
    second = attempts.after(first, BROKEN)
    assert {base(first), base(second)} == {"cheap-0", "cheap-1"}
    assert second is not None
    third = attempts.after(second, BROKEN)
    assert base(third) == "middle-0"
    assert third is not None
    fourth = attempts.after(third, BROKEN)  # the one retry of the request is used up
    assert fourth is not None
    assert fourth.model.name == "dear"
    assert attempts.after(fourth, BROKEN) is None


def test_the_same_server_is_asked_once_more_when_it_is_the_only_one() -> None:
    attempts = Cluster(cheap=1).attempts()
    first = attempts.first()
    assert attempts.after(first, BROKEN) is first
    assert attempts.after(first, BROKEN) is None


@pytest.mark.parametrize("error", [UpstreamTTFTTimeout("silent"), refused(429)])
def test_who_is_busy_or_has_had_its_time_is_not_asked_again(error: UpstreamError) -> None:
    attempts = Cluster(cheap=1).attempts()
    assert attempts.after(attempts.first(), error) is None
    attempts = Cluster(cheap=2).attempts()
    first = attempts.first()
    other = attempts.after(first, error)
    assert other not in (None, first)


def test_a_request_that_is_itself_at_fault_goes_nowhere() -> None:
    attempts = Cluster(cheap=2, dear=1).attempts()
    assert attempts.after(attempts.first(), refused(400)) is None


def test_servers_that_cannot_be_reached_cost_no_budget() -> None:
    cluster = Cluster(UpstreamSettings(retry_budget=0), cheap=4)
    attempts = cluster.attempts()
    asked = [attempts.first()]
    while (onward := attempts.after(asked[-1], UpstreamConnect("refused"))) is not None:
        asked.append(onward)
    assert len(set(asked)) == len(asked) == 4


def test_the_budget_bounds_the_attempts_at_a_model() -> None:
    cluster = Cluster(UpstreamSettings(failures_to_open=1_000_000), cheap=2)
    asked = 0
    for _ in range(100):
        attempts = cluster.attempts()
        endpoint: Endpoint | None = attempts.first()
        while endpoint is not None:
            asked += 1
            endpoint = attempts.after(endpoint, BROKEN)
    assert asked == 120


def test_a_model_of_which_no_server_may_be_asked_is_passed_over() -> None:
    cluster = Cluster(cheap=2, dear=1)
    fail(cluster, BROKEN, 10, "cheap")
    assert base(cluster.attempts().first()) == "dear-0"
    fail(cluster, refused(429, 30), 1, "dear")
    with pytest.raises(UpstreamUnavailable, match="'cheap'"):
        cluster.attempts().first()
