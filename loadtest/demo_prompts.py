"""The prompts of the demo: a day of mixed traffic, easy and hard, short and long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """What is shown of it, the messages, and further fields of the request."""

    shown: str
    messages: tuple[Message, ...]
    stream: bool = True
    fields: tuple[tuple[str, Any], ...] = ()


def demo_prompts() -> tuple[DemoPrompt, ...]:
    """Return the set in the order in which it is sent and shown."""
    return (*_SHORT, *_WORK, *_HARD, _conversation(), _with_tools(), _with_image(), _as_json())


def _ask(text: str, *, stream: bool = True) -> DemoPrompt:
    return DemoPrompt(" ".join(text.split()), ({"role": "user", "content": text},), stream)


_SHORT = (
    _ask("Hi there, how are you today?"),
    _ask("What is the capital of Portugal?"),
    _ask("Thanks, that was helpful!", stream=False),
    _ask("Translate 'good morning' into Spanish."),
    _ask("Give me three names for a grey cat."),
    _ask("Is 'I have went home' correct English?", stream=False),
    _ask("Write a one-line birthday wish for my aunt."),
    _ask("How many minutes are there in a day?"),
)

_WORK = (
    _ask(
        "Extract every date from this text: The lease began on 1 March 2021, was renewed on 15 May 2023 "
        "and ends on 31 December 2026."
    ),
    _ask(
        "Classify the sentiment of this review as positive, negative or mixed: 'The room was spotless and "
        "the staff kind, but the street is so loud that we hardly slept.'",
        stream=False,
    ),
    _ask(
        "Rewrite politely: Your report is late again and it is full of mistakes. Send a new one by Friday or "
        "do not bother."
    ),
    _ask(
        "Summarize in two sentences: The town council met on Tuesday to discuss the bridge. Engineers had "
        "found rust in two of its five supports and asked for a weight limit of ten tonnes. Shop owners "
        "feared that deliveries would stop. After three hours the council agreed on a limit of twelve tonnes, "
        "a night ban for lorries, and a repair fund of two million to be raised over four years, half of it "
        "from the region. A second vote in October will decide who carries out the work."
    ),
    _ask("Brainstorm ten ideas for a team event in winter that cost less than 20 euros a head."),
    _ask("Write a short product description for a solar-powered camping lantern."),
    _ask("What is the difference between a virus and a bacterium? Explain it to a child of ten."),
)

_HARD = (
    _ask("Write a Python function that returns the n-th Fibonacci number.", stream=False),
    _ask(
        "Implement a thread-safe LRU cache with a time to live per entry in Go. Explain the complexity of each "
        "operation, show how eviction and expiry interact, and write table-driven tests."
    ),
    _ask(
        "This SQL is slow on 200 million rows: SELECT customer_id, SUM(amount) FROM orders WHERE created_at > "
        "now() - interval '30 days' GROUP BY customer_id HAVING SUM(amount) > 1000. Which indexes, partitions "
        "or rewrites would you try, in which order, and how would you prove that each one helped?"
    ),
    _ask("Solve for x: 3x + 7 = 22."),
    _ask("Prove that the square root of 2 is irrational, then generalize the proof to every non-square integer."),
    _ask(
        "A train leaves A at 9:40 at 80 km/h, another leaves B, 210 km away, at 10:10 at 100 km/h towards it. "
        "When and how far from A do they meet? Show every step.",
        stream=False,
    ),
    _ask(
        "Three people each say one sentence. Anna: 'Ben lies.' Ben: 'Clara lies.' Clara: 'Anna and Ben both "
        "lie.' Exactly one tells the truth or exactly two do; find every consistent case and justify it."
    ),
    _ask(
        "Derive the closed-form solution of ridge regression from its objective, discuss what happens as the "
        "penalty goes to zero when features are collinear, and relate it to a Gaussian prior."
    ),
    _ask(
        "A 54-year-old with diabetes and stage 3 kidney disease takes metformin, lisinopril and ibuprofen. "
        "Which interactions and dose limits matter, which laboratory values would you watch, and why?"
    ),
    _ask(
        "Compare the separation of powers in Germany, France and the United States in a table, then argue "
        "which design copes best with a divided parliament. Cite the articles you rely on."
    ),
)


def _conversation() -> DemoPrompt:
    turns = (
        "Hi! I am learning about databases.",
        "Hello! What would you like to know?",
        "Explain how multi-version concurrency control avoids read locks, and which anomalies remain "
        "under snapshot isolation. Give an example schedule of write skew.",
        "Readers see a snapshot, so they take no locks; two writers can still break a shared rule.",
        "ok thanks",
    )
    messages = tuple(
        {"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(turns)
    )
    return DemoPrompt("(conversation of 3 turns) ok thanks", messages)


def _with_tools() -> DemoPrompt:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": "get_weather", "description": "The weather now", "parameters": parameters}
    text = "What is the weather in Oslo right now?"
    tools = [{"type": "function", "function": function}]
    return DemoPrompt(f"(tools) {text}", ({"role": "user", "content": text},), fields=(("tools", tools),))


def _with_image() -> DemoPrompt:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
        "WjR9awAAAABJRU5ErkJggg=="
    )
    text = "Describe this picture in one sentence."
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": pixel}}]
    return DemoPrompt(f"(image) {text}", ({"role": "user", "content": content},))


def _as_json() -> DemoPrompt:
    text = "List the planets of the solar system with their number of moons as JSON."
    wanted = (("response_format", {"type": "json_object"}),)
    return DemoPrompt(f"(JSON) {text}", ({"role": "user", "content": text},), stream=False, fields=wanted)
