"""The token that carries places through a client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.log import Place, WrongToken, read_token, write_token

SECRET = "a secret of sixteen or more"
places = st.lists(
    st.builds(Place, st.sampled_from(["views", "videos", "positions"]), st.integers(0, 999), st.integers(0, 2**63 - 1)),
    max_size=8,
)


@given(places)
def test_a_token_holds_the_furthest_place_of_each_partition(given_places: list[Place]) -> None:
    furthest = {(p.topic, p.partition): p for p in sorted(given_places)}
    assert set(read_token(write_token(given_places, SECRET), SECRET)) == set(furthest.values())


@given(places, st.data())
def test_a_changed_token_is_refused(given_places: list[Place], data: st.DataObject) -> None:
    token = write_token(given_places, SECRET)
    at = data.draw(st.integers(0, len(token) - 2))  # the last character may hold bits that base64 ignores
    letter = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != token[at]))
    with pytest.raises(WrongToken):
        read_token(token[:at] + letter + token[at + 1 :], SECRET)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(WrongToken):
        read_token(text, SECRET)


def test_a_token_signed_with_another_secret_is_refused() -> None:
    with pytest.raises(WrongToken):
        read_token(write_token([Place("views", 0, 1)], "another secret, long enough"), SECRET)
