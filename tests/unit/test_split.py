"""A split's choice: its share, who stays, and what a growing weight changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput
from tidegate.core.ledger import Deployment, Pointer, Served, Share, Split, after, rolled_back
from tidegate.core.split import check_weight, choose, parse_weight, percent, point_of, shown, sides

weights = st.floats(0.001, 0.999)
callers = st.text()


def served(number: int) -> Served:
    made = Artifact(messages=(Message("user", str(number)),), model="a/b")
    return Served("support/answer", number, digest(made), made)


def split(weight: float, split_id: str = "s1") -> Served:
    live = served(6)
    return Served(live.prompt, live.version, live.digest, live.artifact, Share(split_id, weight, served(7)))


def chosen(live: Served, caller: str | None, draw: float = 0.0, environment: str = "production") -> int | None:
    return choose(live, environment, caller, lambda: draw).version


def never() -> float:
    raise AssertionError("a caller that says who it is needs no draw")


@given(callers, weights)
def test_a_caller_stays_with_its_version_and_draws_nothing(caller: str, weight: float) -> None:
    first = choose(split(weight), "production", caller, never)
    assert choose(split(weight), "production", caller, never) == first


@given(callers, weights, weights)
def test_a_weight_that_grows_takes_nobody_back(caller: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if chosen(split(small), caller) == 7:
        assert chosen(split(large), caller) == 7


@given(st.floats(0, 1, exclude_max=True), weights)
def test_a_call_without_a_caller_draws(draw: float, weight: float) -> None:
    assert chosen(split(weight), None, draw) == (7 if draw < weight else 6)


@given(callers)
def test_a_point_lies_in_0_to_1(caller: str) -> None:
    assert 0 <= point_of("p", "production", "s", caller) < 1


@given(weights, st.integers(0, 10_000))
def test_the_share_of_callers_is_the_weight(weight: float, seed: int) -> None:
    """Within five standard deviations of 2,000 independent callers."""
    live, count = split(weight, f"s{seed}"), 2_000
    new = sum(chosen(live, f"user-{number}") == 7 for number in range(count))
    assert abs(new - weight * count) <= 5 * math.sqrt(count * weight * (1 - weight)) + 1


def test_who_is_in_one_split_says_nothing_about_another() -> None:
    """By split, prompt and environment."""
    first = {caller for caller in map(str, range(1_000)) if chosen(split(0.5), caller) == 7}
    again = {caller for caller in map(str, range(1_000)) if chosen(split(0.5, "s2"), caller) == 7}
    staging = {caller for caller in map(str, range(1_000)) if chosen(split(0.5), caller, environment="staging") == 7}
    for other in (again, staging):
        assert 150 < len(first & other) < 350


def test_a_point_never_changes_between_releases() -> None:
    """Or a gateway's update would move callers."""
    assert point_of("support/answer", "production", "s1", "user-1") == 0.7659789703411354


def test_without_a_split_nothing_is_drawn() -> None:
    live = served(6)
    assert choose(live, "production", None, never) is live


@pytest.mark.parametrize(
    ("text", "weight"), [("10%", 0.1), (" 2.5 % ", 0.025), ("0.01%", 0.0001), ("99.9%", 0.999), ("1e1%", 0.1)]
)
def test_a_weight_is_written_with_a_percent_sign(text: str, weight: float) -> None:
    assert parse_weight(text) == weight


@pytest.mark.parametrize("text", ["10", "0.1", "", "%", "ten%", "10%%", "10% of", "-5%", "nan%"])
def test_anything_else_is_no_weight(text: str) -> None:
    with pytest.raises(BadInput, match=r"write it as 10%|below 100 %"):
        parse_weight(text)


@pytest.mark.parametrize("text", ["0%", "100%", "250%", "0.00001%", "inf%"])
def test_all_and_none_are_no_shares(text: str) -> None:
    with pytest.raises(BadInput, match="For all calls deploy without a weight; for none roll back"):
        parse_weight(text)


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
def test_a_share_lies_between_0_and_1(weight: float) -> None:
    with pytest.raises(BadInput):
        check_weight(weight)


@pytest.mark.parametrize(("share", "text"), [(0.1, "10 %"), (0.9, "90 %"), (0.025, "2.5 %"), (1.0, "100 %")])
def test_a_share_for_people(share: float, text: str) -> None:
    assert percent(share) == text


# --- the pointer, from moves ----------------------------------------------------------------------------------------


def move(
    number: int, to: int, *, came: int | None = None, weight: float | None = None, back: bool = False
) -> Deployment:
    return Deployment(
        id=f"d{number}",
        prompt="support/answer",
        environment="production",
        action="rollback" if back else "deploy",
        from_version=came,
        to_version=to,
        to_digest=f"digest of {to}",
        who=f"person {number}",
        reason="",
        at=f"2026-03-01T12:00:{number:02}.000000Z",
        weight=weight,
    )


def pointer(*moves: Deployment) -> Pointer:
    now: Pointer | None = None
    for one in moves:
        now = after(now, one)
    assert now is not None
    return now


V6 = move(1, 6)
TENTH = move(2, 7, came=6, weight=0.1)


def test_a_split_leaves_the_pointer_where_it_is() -> None:
    now = pointer(V6, TENTH)
    assert (now.version, now.since, now.by) == (6, "2026-03-01T12:00:01.000000Z", "person 1")
    assert now.shares == {6: 0.9, 7: 0.1}
    assert now.settled == "2026-03-01T12:00:02.000000Z"
    assert shown(now) == "v6 90 % / v7 10 %"
    assert shown(pointer(V6)) == "v6"


def test_a_split_keeps_its_id_while_only_the_weight_changes() -> None:
    grown = pointer(V6, TENTH, move(3, 7, came=6, weight=0.2)).split
    assert grown == Split("d2", 7, "digest of 7", 0.2, "2026-03-01T12:00:03.000000Z", "person 3")


@pytest.mark.parametrize(
    "moves", [(move(3, 8, came=6, weight=0.2),), (move(2, 6, came=7, back=True), move(3, 7, came=6, weight=0.1))]
)
def test_another_version_and_a_new_start_are_splits_of_their_own(moves: tuple[Deployment, ...]) -> None:
    split = pointer(V6, TENTH, *moves).split
    assert split is not None
    assert split.id == "d3"


@pytest.mark.parametrize("end", [move(3, 7, came=6), move(3, 6, came=7), move(3, 6, came=7, back=True), move(3, 8)])
def test_a_move_without_a_weight_ends_the_split(end: Deployment) -> None:
    now = pointer(V6, TENTH, end)
    assert (now.split, now.version, now.since) == (None, end.to_version, end.at)


def test_a_rollback_takes_out_all_that_was_served_but_what_it_goes_to() -> None:
    assert rolled_back([V6, TENTH, move(3, 6, came=7, back=True)]).keys() == {7}
    assert rolled_back([move(0, 5), V6, TENTH, move(3, 5, came=6, back=True)]).keys() == {6, 7}
    assert not rolled_back([V6, TENTH, move(3, 6, came=7)]), "ended, not rolled back"
    assert not rolled_back([V6, TENTH, move(3, 6, came=7, back=True), move(4, 7, came=6, weight=0.1)])


def test_a_move_for_people() -> None:
    assert sides(V6) == ("", "v6")
    assert sides(TENTH) == ("v6 90 % / ", "v7 10 %")
    assert sides(move(3, 7, came=6)) == ("v6 → ", "v7")
