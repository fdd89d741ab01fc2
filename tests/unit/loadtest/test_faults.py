import pytest

from loadtest.simulated_llm.app import FaultSwitch
from loadtest.simulated_llm.faults import HELP, Fault, FaultSyntaxError, parse_fault


def test_empty_text_is_no_fault():
    assert parse_fault(" ; ") == Fault()


def test_words_and_numbers_combine():
    assert parse_fault("status=429; retry_after=1.5;times=2") == Fault(status=429, retry_after=1.5, times=2)
    assert parse_fault("die_after_chunks=3;die_mid_event") == Fault(die_after_chunks=3, die_mid_event=True)


def test_a_fault_may_strike_some_requests_only():
    for text, struck in (("hang;times=2", 2), ("hang;every=2", 3), ("hang;every=3;times=1", 1), ("hang", 6)):
        switch = FaultSwitch(parse_fault(text))
        assert sum(switch.take().hang for _ in range(6)) == struck


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("explode", "'explode' is not known; allowed"),
        ("hang=1", "'hang=1' is not known"),
        ("status", "'status' is not known"),
        ("status=99", "status='99' must be a whole number from 200 to 599"),
        ("every=0", "every='0' must be a whole number from 1"),
        ("times=1.5", "times='1.5' must be a whole number"),
        ("delay_ms=nan", "delay_ms='nan' must be a number from 0"),
    ],
)
def test_a_bad_fault_is_named(text, message):
    with pytest.raises(FaultSyntaxError, match=message):
        parse_fault(text)


def test_help_explains_every_word():
    for name in Fault.__dataclass_fields__:
        assert f"\n{name}" in f"\n{HELP}"
