"""The simulated LLM over real sockets, as clients and the router's fault tests use it."""

import http.client
import itertools
import json
import subprocess
import sys
import time

import aiohttp
import openai
import pytest

from loadtest.processes import ChildError, listen
from loadtest.simulated_llm import SimulatedLLM, simulated_llm

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]


@pytest.fixture(scope="module")
def llm():
    with simulated_llm("cheap-sim") as running:
        yield running


@pytest.fixture(autouse=True)
def healed(llm):
    yield
    llm.set_fault("")


@pytest.fixture
def client(llm):
    with openai.OpenAI(base_url=llm.base_url, api_key="none", max_retries=0, timeout=10) as client:
        yield client


def chat(client, **fields):
    return client.chat.completions.create(model="cheap-sim", messages=HELLO, **fields)


def raw(llm, body=None, headers=None, method="POST", path="/v1/chat/completions"):
    """Return status, headers and bytes; the bytes that came before the socket closed."""
    connection = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=10)
    try:
        payload = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, payload, headers or {})
        answer = connection.getresponse()
        try:
            data = answer.read()
        except http.client.IncompleteRead as cut:
            data = cut.partial
            return answer.status, answer.headers, data, "cut"
        return answer.status, answer.headers, data, "whole"
    finally:
        connection.close()


def body(**fields):
    return {"model": "cheap-sim", "messages": HELLO, **fields}


def test_an_answer_is_honest_and_counted(client):
    answer = chat(client)
    assert answer.choices[0].message.content.startswith("Simulated answer of cheap-sim")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_same_answer_in_pieces(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) == whole.usage.completion_tokens
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_and_only_when_asked(client, llm):
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == len(chunks) - 2
    with_usage = raw(llm, body(stream=True, stream_options={"include_usage": True}))[2]
    without = raw(llm, body(stream=True))[2]
    assert with_usage.count(b'"usage":null') == len(chunks)
    assert b"usage" not in without
    assert with_usage.endswith(b"data: [DONE]\n\n")
    assert without.endswith(b"data: [DONE]\n\n")


def test_choices_are_streamed_side_by_side(client):
    texts = ["", "", ""]
    for chunk in chat(client, stream=True, n=3):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in chat(client, n=3).choices]


def test_tools_are_called_streamed_and_not(client):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    (call,) = chat(client, tools=tools).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "simulated"})
    deltas = [chunk.choices[0] for chunk in chat(client, tools=tools, stream=True)]
    parts = [delta.delta.tool_calls[0].function for delta in deltas if delta.delta.tool_calls]
    assert parts[0].name == "weather"
    assert "".join(part.arguments for part in parts) == call.function.arguments
    assert deltas[-1].finish_reason == "tool_calls"


def test_tokens_arrive_in_their_own_time():
    with simulated_llm("slow-sim", ttft_ms=120, tokens_per_s=50, answer_tokens=10, answer_sigma=0) as slow:
        connection = http.client.HTTPConnection("127.0.0.1", slow.port, timeout=10)
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body(model="slow-sim", stream=True)))
        answer = connection.getresponse()
        first = time.perf_counter() - started
        answer.read()
        last = time.perf_counter() - started
        connection.close()
    assert first >= 0.120
    assert last - first >= 9 * 0.020 * 0.9  # ten tokens, so at least nine gaps


def test_what_arrived_can_be_read_byte_for_byte(llm):
    odd = '{"model":"cheap-sim",  "future":[1e3,"é😀"],\n"messages":[{"role":"user","content":null}]}'.encode()
    raw(llm, odd, {"Authorization": "Bearer k", "X-Odd": "Yes"})
    seen = llm.requests()[-1]
    assert seen.body == odd
    assert seen.headers["authorization"] == "Bearer k"
    assert seen.headers["x-odd"] == "Yes"
    assert seen.json()["future"] == [1000.0, "é😀"]


def test_only_the_last_requests_are_kept():
    with simulated_llm("small-sim", keep_requests=2) as small:
        for number in range(3):
            raw(small, body(model="small-sim", seed=number))
        assert [seen.json()["seed"] for seen in small.requests()] == [1, 2]


def test_health_models_and_the_unknown(llm):
    assert json.loads(raw(llm, method="GET", path="/health")[2]) == {"status": "ok", "simulated": True}
    models = json.loads(raw(llm, method="GET", path="/v1/models")[2])
    assert [model["id"] for model in models["data"]] == ["cheap-sim"]
    assert raw(llm, method="GET", path="/nothing")[0] == 404


def test_answers_carry_an_upstream_headers(client, llm):
    headers = raw(llm, body())[1]
    assert headers["x-request-id"].startswith("req-simulated-")
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-ratelimit-remaining-requests"] == "9999"


def test_a_key_is_required_when_configured():
    with simulated_llm("cheap-sim", api_key="right") as locked:
        status, _, data, _ = raw(locked, body(), {"Authorization": "Bearer wrong"})
        assert (status, json.loads(data)["error"]["code"]) == (401, "invalid_api_key")
        assert raw(locked, body(), {"Authorization": "Bearer right"})[0] == 200


def test_another_models_name_is_refused_unless_all_are_welcome(llm):
    status, _, data, _ = raw(llm, body(model="other"))
    assert (status, json.loads(data)["error"]["param"]) == (404, "model")
    with simulated_llm("open-sim", any_model=True) as welcoming:
        assert json.loads(raw(welcoming, body(model="other"))[2])["model"] == "other"


def test_a_status_fault_by_switch_and_by_header(llm, client):
    llm.set_fault("status=503")
    with pytest.raises(openai.InternalServerError, match="told to answer 503"):
        chat(client)
    llm.set_fault("")
    status, headers, data, _ = raw(llm, body(), {"x-simulated-fault": "status=429;retry_after=3"})
    assert (status, headers["retry-after"]) == (429, "3")
    assert json.loads(data)["error"]["type"] == "rate_limit_error"
    assert raw(llm, body())[0] == 200


def test_a_fault_can_last_for_a_few_requests(llm):
    llm.set_fault("status=500;times=2")
    assert [raw(llm, body())[0] for _ in range(3)] == [500, 500, 200]


def test_a_fault_can_be_there_from_the_start():
    with simulated_llm("cheap-sim", fault="status=502") as ill:
        assert raw(ill, body())[0] == 502


def test_an_unreadable_fault_is_refused_with_the_allowed_words(llm):
    status, _, data, _ = raw(llm, b"explode", method="PUT", path="/_simulated/fault")
    assert status == 400
    assert "die_after_chunks=N" in json.loads(data)["error"]["message"]
    assert raw(llm, body(), {"x-simulated-fault": "explode"})[0] == 400


def test_a_delay_holds_the_answer_back(llm):
    started = time.perf_counter()
    raw(llm, body(), {"x-simulated-fault": "delay_ms=150"})
    assert time.perf_counter() - started >= 0.150


@pytest.mark.parametrize("chunks", [0, 3])
def test_it_can_die_between_events(llm, chunks):
    _, _, data, end = raw(llm, body(stream=True), {"x-simulated-fault": f"die_after_chunks={chunks}"})
    assert (end, data.count(b"data: ")) == ("cut", chunks)
    assert data == b"" or data.endswith(b"\n\n")


def test_it_can_die_inside_an_event(llm):
    _, _, data, end = raw(llm, body(stream=True), {"x-simulated-fault": "die_after_chunks=2;die_mid_event"})
    assert (end, data.count(b"data: ")) == ("cut", 3)
    assert not data.endswith(b"\n")


def test_it_can_die_inside_a_whole_answer(llm):
    _, headers, data, end = raw(llm, body(), {"x-simulated-fault": "die_after_chunks=20"})
    assert (end, len(data)) == ("cut", 20)
    assert int(headers["content-length"]) > 20


def test_malformed_events_and_bodies(llm):
    data = raw(llm, body(stream=True), {"x-simulated-fault": "malformed"})[2]
    payloads = [event.removeprefix(b"data: ") for event in data.split(b"\n\n")]
    assert json.loads(payloads[0])["choices"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(payloads[1])
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw(llm, body(), {"x-simulated-fault": "malformed"})[2])


def test_an_error_can_come_with_status_200(llm):
    status, _, data, _ = raw(llm, body(stream=True), {"x-simulated-fault": "error_event"})
    assert status == 200
    assert json.loads(data.split(b"\n\n")[0].removeprefix(b"data: "))["error"]["code"] == "simulated_fault"
    assert "error" in json.loads(raw(llm, body(), {"x-simulated-fault": "error_event"})[2])


@pytest.mark.parametrize("stream", [False, True])
def test_huge_answers(llm, stream):
    data = raw(llm, body(stream=stream), {"x-simulated-fault": "huge"})[2]
    assert max(map(len, data.split(b"\n\n"))) > 8 * 1024 * 1024


@pytest.mark.parametrize("fault", ["hang", "delay_ms=60000"])
async def test_a_client_that_goes_away_is_noticed(llm, fault):
    before = llm.stats()["disconnects"]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            await session.post(
                f"{llm.base_url}/chat/completions",
                json=body(),
                headers={"x-simulated-fault": fault},
                timeout=aiohttp.ClientTimeout(total=0.1),
            )
    llm.wait_for(lambda stats: stats["disconnects"] == before + 1 and stats["in_flight"] == 0)


def test_a_client_that_leaves_a_stream_is_noticed():
    with (
        simulated_llm("cheap-sim", tokens_per_s=5, answer_tokens=100) as slow,
        openai.OpenAI(base_url=slow.base_url, api_key="none", max_retries=0) as client,
    ):
        stream = chat(client, stream=True)
        assert len(list(itertools.islice(stream, 2))) == 2
        stream.close()
        slow.wait_for(lambda stats: stats == {"requests": 1, "in_flight": 0, "disconnects": 1})


def test_a_taken_port_ends_the_command_with_its_name():
    with listen(0, "") as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "loadtest.simulated_llm", "--name", "sim", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"port {port} is already taken; choose another with --port=PORT\n"


def test_a_wrong_option_is_told_at_once(tmp_path):
    llm = SimulatedLLM.start("sim", log_path=tmp_path / "sim.log", fault="explode")
    try:
        with pytest.raises(ChildError, match=r"(?s)exit code 2.*'explode' is not known"):
            llm.wait_ready()
    finally:
        llm.stop()
