import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.groups import BOILERPLATE_PROMPTS, near_duplicate_groups, shingles

QUESTION = "which planet of our solar system has the largest number of known moons today"


def test_shingles_ignore_case_and_punctuation() -> None:
    assert shingles("Which planet, of our system?") == shingles("which PLANET of our system")
    assert len(shingles("one two three four five six seven")) == 3
    assert len(shingles("short")) == 1


def test_a_longer_version_of_a_prompt_joins_its_group() -> None:
    groups = near_duplicate_groups(
        [QUESTION, "something else that has nothing in common", QUESTION + " A. Mars B. Saturn"]
    )
    assert groups[0] == groups[2] != groups[1]


def test_groups_join_through_a_chain() -> None:
    words = [f"w{i}" for i in range(40)]
    first, middle, last = " ".join(words[:20]), " ".join(words[8:32]), " ".join(words[20:])
    assert len(set(near_duplicate_groups([first, last]).tolist())) == 2
    assert len(set(near_duplicate_groups([first, middle, last]).tolist())) == 1


def test_common_instructions_do_not_join_prompts() -> None:
    instruction = "you are given a function and shall say what it returns for this input"
    prompts = [f"{instruction} {' '.join(f'n{i}x{j}' for j in range(6))}" for i in range(BOILERPLATE_PROMPTS + 5)]
    assert len(set(near_duplicate_groups(prompts).tolist())) == len(prompts)


def test_identical_prompts_join_even_when_all_they_have_is_boilerplate() -> None:
    assert set(near_duplicate_groups(["hello"] * (BOILERPLATE_PROMPTS + 5)).tolist()) == {0}


@given(st.lists(st.text(alphabet="abc ", max_size=30), max_size=12), st.randoms(use_true_random=False))
def test_the_partition_does_not_depend_on_the_order(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis hands over a random.Random
    plain = near_duplicate_groups(texts)
    shuffled = near_duplicate_groups([texts[place] for place in order])
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            assert (plain[a] == plain[b]) == (shuffled[i] == shuffled[j])


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_empty_input(texts: list[str]) -> None:
    assert len(near_duplicate_groups(texts)) == len(texts)
