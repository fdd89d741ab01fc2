import json
import statistics

import pytest

from loadtest.simulated_llm.answer import Profile, example_of, plan_answer
from loadtest.simulated_llm.request import BadRequestError, read_request

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def request(text="How are you?", **fields):
    body = {"model": "sim", "messages": [{"role": "user", "content": text}], **fields}
    return read_request(json.dumps(body).encode())


def answer(text="How are you?", profile=None, **fields):
    return plan_answer("sim", profile or Profile(), request(text, **fields))


def test_the_same_prompt_gets_the_same_answer_and_another_one_does_not():
    assert answer("one") == answer("one")
    assert answer("one") != answer("two")


def test_times_and_lengths_follow_their_medians():
    profile = Profile(ttft_ms=80, ttft_sigma=0.4, tokens_per_s=50, tokens_per_s_sigma=0.3, answer_tokens=60)
    answers = [answer(f"prompt {number}", profile) for number in range(400)]
    assert statistics.median(one.ttft_s for one in answers) == pytest.approx(0.080, rel=0.15)
    assert statistics.median(1 / one.gap_s for one in answers) == pytest.approx(50, rel=0.15)
    assert statistics.median(one.completion_tokens for one in answers) == pytest.approx(60, rel=0.15)
    assert len({one.completion_tokens for one in answers}) > 30


def test_the_answer_says_that_it_is_simulated():
    assert answer().choices[0].text.startswith("Simulated answer of sim")


def test_a_token_limit_cuts_and_says_length():
    for field in ("max_tokens", "max_completion_tokens"):
        (choice,) = answer(**{field: 5}).choices
        assert (len(choice.pieces), choice.finish_reason) == (5, "length")
    assert answer(max_tokens=5, max_completion_tokens=7).completion_tokens == 7


def test_choices_differ_and_all_count():
    planned = answer(n=3, max_tokens=9, profile=Profile(answer_tokens=40))
    assert planned.completion_tokens == 27
    assert len({choice.text for choice in planned.choices}) == 1  # cut inside the common opening
    assert len({choice.text for choice in answer(n=3).choices}) == 3


def test_a_tool_is_called_with_arguments_of_its_schema():
    (choice,) = answer(tools=[WEATHER, CLOCK]).choices
    assert (choice.tool, choice.finish_reason) == ("weather", "tool_calls")
    assert json.loads(choice.text) == {"city": "simulated", "days": 1}


def test_tool_choice_is_obeyed():
    chosen = {"type": "function", "function": {"name": "clock"}}
    assert answer(tools=[WEATHER, CLOCK], tool_choice=chosen).choices[0].tool == "clock"
    assert answer(tools=[WEATHER], tool_choice="none").choices[0].tool is None
    with pytest.raises(BadRequestError, match="not in 'tools'"):
        answer(tools=[WEATHER], tool_choice=chosen)


def test_a_tool_result_is_answered_in_words():
    body = {
        "model": "sim",
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        ],
        "tools": [WEATHER],
    }
    assert read_request(json.dumps(body).encode()).tool is None


def test_json_is_answered_when_asked_for():
    assert json.loads(answer(response_format={"type": "json_object"}).choices[0].text)["simulated"] is True
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    assert json.loads(answer(response_format=wanted).choices[0].text) == {"mood": "good"}


def test_images_are_seen_and_cost_tokens():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "What is this?"}, image, image]
    assert "It saw 2 images." in answer(parts).choices[0].text
    assert request(parts).prompt_tokens - request("What is this?").prompt_tokens == 170


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"]}, "simulated"),
        ({"type": "array", "items": {"type": "number"}}, [1.5]),
        ({"type": "array"}, []),
        ({"type": "null"}, None),
        ({}, {}),
    ],
)
def test_an_example_fits_its_schema(schema, value):
    assert example_of(schema) == value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"\xff", None),
        (b"[]", None),
        (b'{"model":"sim","messages":[]}', "messages"),
        (b'{"model":"sim","messages":["hello"]}', "messages"),
        (b'{"messages":[{"role":"user"}]}', "model"),
        (b'{"model":"sim","messages":[{"role":"user"}],"n":0}', "n"),
        (b'{"model":"sim","messages":[{"role":"user"}],"max_tokens":true}', "max_tokens"),
        (b'{"model":"sim","messages":[{"role":"user"}],"tools":[1]}', None),
    ],
)
def test_a_bad_request_names_its_field(body, param):
    with pytest.raises(BadRequestError) as caught:
        read_request(body)
    assert caught.value.param == param
