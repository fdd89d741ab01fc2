"""Faults that a simulated LLM shows on request, written as `status=503;retry_after=3`."""

from __future__ import annotations

from dataclasses import dataclass, fields

HELP = """\
status=N          answer with this HTTP status and OpenAI's error object
retry_after=S     with status: send this Retry-After
delay_ms=N        wait before doing anything
hang              read the request and never answer
error_event       the first event (or the whole answer) is an error object, status 200
malformed         after the first event: an event whose JSON is broken
huge              one event (or answer) of 9 MB
die_after_chunks=N  close the socket after N events (not streamed: after N bytes of the answer)
die_mid_event     with die_after_chunks: half of the next event leaves first
times=N           only the next N requests, then healthy again
every=N           only each Nth request"""

HUGE_BYTES = 9_000_000


class FaultSyntaxError(ValueError):
    """A fault that cannot be read; the message names the word and lists what is allowed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in an answer; the default is nothing. See HELP for the words."""

    status: int = 200
    retry_after: float | None = None
    delay_ms: float = 0.0
    hang: bool = False
    error_event: bool = False
    malformed: bool = False
    huge: bool = False
    die_after_chunks: int | None = None
    die_mid_event: bool = False
    times: int | None = None
    every: int = 1


_FLAGS = frozenset(field.name for field in fields(Fault) if field.type == "bool")
_NUMBERS = frozenset(field.name for field in fields(Fault)) - _FLAGS
_FRACTIONS = frozenset({"retry_after", "delay_ms"})
_RANGES = {"status": (200, 599), "every": (1, 1e9)}


def parse_fault(text: str) -> Fault:
    """Return the fault that `text` describes; empty text is no fault.

    Raises `FaultSyntaxError`: an unknown word, or a value that is not a number in range.
    """
    values: dict[str, float | bool] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in _FLAGS and not equals:
            values[key] = True
        elif key in _NUMBERS and equals:
            values[key] = _number(key, value)
        else:
            raise FaultSyntaxError(
                f"fault {part!r} is not known; allowed, joined by ';': "
                f"{', '.join(sorted(_FLAGS))}, {', '.join(f'{name}=N' for name in sorted(_NUMBERS))}"
            )
    return Fault(**values)  # type: ignore[arg-type]  # the names and kinds were checked above


def _number(key: str, value: str) -> float:
    low, high = _RANGES.get(key, (0, 1e9))
    try:
        number = float(value) if key in _FRACTIONS else int(value)
    except ValueError:
        number = -1
    if not low <= number <= high:
        kind = "a number" if key in _FRACTIONS else "a whole number"
        raise FaultSyntaxError(f"fault {key}={value!r} must be {kind} from {low} to {high:.0f}")
    return number
