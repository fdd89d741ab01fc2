"""The committed prompts, and what a file of one's own must look like."""

import base64
import json
import random
import zlib
from collections import Counter

import pytest

from loadtest.labelled_set import labelled_prompts
from loadtest.load.prompts import PromptError, PromptSet, default_prompts, encode, load_prompts

PROMPTS = default_prompts()
NVIDIA_TASKS = {
    "Brainstorming",
    "Chatbot",
    "Classification",
    "Closed QA",
    "Code Generation",
    "Extraction",
    "Open QA",
    "Other",
    "Rewrite",
    "Summarization",
    "Text Generation",
}


def texts(prompt):
    for message in prompt.messages:
        content = message["content"]
        yield from [content] if isinstance(content, str) else [p["text"] for p in content or () if p["type"] == "text"]


def test_there_are_enough_and_no_two_are_alike():
    assert len(PROMPTS) >= 1900
    assert {prompt.id for prompt in labelled_prompts()} < {prompt.id for prompt in PROMPTS}
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)
    assert len({json.dumps(prompt.messages) for prompt in PROMPTS}) == len(PROMPTS)


def test_they_span_tasks_languages_and_lengths():
    assert {prompt.task for prompt in PROMPTS} == NVIDIA_TASKS
    assert min(Counter(prompt.task for prompt in PROMPTS).values()) >= 10
    several = [language for language, count in Counter(prompt.language for prompt in PROMPTS).items() if count >= 5]
    assert len(several) >= 6
    lengths = sorted(sum(map(len, texts(prompt))) for prompt in PROMPTS)
    assert lengths[0] < 10
    assert 40 < lengths[len(lengths) // 2] < 300
    assert lengths[-1] > 4000


def test_they_span_conversations_tools_images_and_roles():
    roles = Counter(message["role"] for prompt in PROMPTS for message in prompt.messages)
    assert {"system", "developer", "user", "assistant", "tool"} == set(roles)
    assert sum(len(prompt.messages) >= 3 for prompt in PROMPTS) >= 10
    assert sum(bool(prompt.tools) for prompt in PROMPTS) >= 10
    assert sum(bool(images(prompt)) for prompt in PROMPTS) >= 8


def images(prompt):
    parts = [part for m in prompt.messages if isinstance(m["content"], list) for part in m["content"]]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def test_the_images_are_images():
    for url in (url for prompt in PROMPTS for url in images(prompt)):
        png = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        length, body = int.from_bytes(png[33:37], "big"), png[41:]
        assert png[37:41] == b"IDAT"
        assert zlib.decompress(body[:length])


def test_the_tools_are_openai_functions_and_their_calls_are_answered():
    for prompt in PROMPTS:
        for tool in prompt.tools:
            assert tool["type"] == "function"
            parameters = tool["function"]["parameters"]
            assert set(parameters["required"]) <= set(parameters["properties"])
        names = {tool["function"]["name"] for tool in prompt.tools}
        calls = {call["id"]: call for m in prompt.messages for call in m.get("tool_calls", ())}
        assert {call["function"]["name"] for call in calls.values()} <= names
        assert all(json.loads(call["function"]["arguments"]) for call in calls.values())
        assert {m["tool_call_id"] for m in prompt.messages if m["role"] == "tool"} == set(calls)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_a_repeated_prompt_goes_word_for_word_and_another_only_gains_a_number(prompt):
    request = encode(prompt, "auto", stream=True)
    plain = json.loads(request.body())
    assert plain["messages"] == list(prompt.messages)
    assert (plain["model"], plain["stream"], plain["stream_options"]) == ("auto", True, {"include_usage": True})
    numbered = request.body(" (ref. 1)").decode()
    assert numbered.count(" (ref. 1)") == 1
    assert json.loads(numbered.replace(" (ref. 1)", "")) == plain
    last = [message for message in json.loads(numbered)["messages"] if message["role"] == "user"][-1]
    assert "(ref. 1)" in json.dumps(last)


def test_weights_decide_how_often_a_prompt_is_sent(tmp_path):
    path = write(tmp_path, one(messages=user("rare")), one(messages=user("often"), weight=9))
    prompts, rng = PromptSet.of(load_prompts(path), "auto"), random.Random(1)
    sent = [prompts.pick(rng, stream=False, repeat=True) for _ in range(2000)]
    assert 0.86 < sum(b"often" in body for body in sent) / len(sent) < 0.94
    assert len(set(sent)) == 2
    assert len({prompts.pick(rng, stream=False, repeat=False) for _ in range(50)}) == 50


def user(text):
    return [{"role": "user", "content": text}]


def one(**fields):
    return fields


def write(tmp_path, *prompts):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return path


def test_messages_are_all_that_a_prompt_needs(tmp_path):
    [prompt] = load_prompts(write(tmp_path, one(messages=user("hi"))))
    assert (prompt.id, prompt.weight, prompt.tools) == ("1", 1.0, ())


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ({"messages": []}, "messages"),
        ({"message": user("hi")}, "message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "user turn"),
        ({"messages": [{"role": "user", "content": " "}]}, "user turn"),
        ({"messages": [*user("a"), {"role": "user", "content": [{"type": "image_url"}]}]}, "last user turn"),
        ({"messages": user("x"), "weight": 0}, "weight"),
        ({"messages": user("x"), "max_tokens": 0}, "max_tokens"),
        (["x"], "object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, prompt, names):
    path = write(tmp_path, {"messages": user("fine")}, prompt)
    with pytest.raises(PromptError, match=r"mine\.jsonl, line 2: ") as caught:
        load_prompts(path)
    assert names in str(caught.value)


def test_a_file_that_is_missing_empty_or_no_json_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"nothing\.jsonl cannot be read"):
        load_prompts(tmp_path / "nothing.jsonl")
    with pytest.raises(PromptError, match="holds no prompt"):
        load_prompts(write(tmp_path))
    path = tmp_path / "mine.jsonl"
    path.write_text("hello\n")
    with pytest.raises(PromptError, match="line 1"):
        load_prompts(path)
