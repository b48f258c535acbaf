"""Ids of tool calls on the way to Mistral."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tollway.providers.mistral import tools
from tollway.providers.mistral.tools import CallIds, short_id

FITS = re.compile(r"[A-Za-z0-9]{9}")


@given(st.lists(st.text() | st.sampled_from(["call_1", "abcDEF123", "null", ""])))
def test_ids_fit_stay_apart_and_stay_the_same(originals: list[str]) -> None:
    ids, again = CallIds(), CallIds()
    mapped = [ids[original] for original in originals]
    assert all(FITS.fullmatch(one) for one in mapped)
    assert len(set(mapped)) == len(set(originals))
    assert mapped == [again[original] for original in originals]


def test_an_id_that_fits_is_kept() -> None:
    assert CallIds()["abcDEF123"] == "abcDEF123"


def test_a_collision_is_hashed_once_more() -> None:
    taken = short_id("call_1")
    ids = CallIds()
    assert ids[taken] == taken
    assert ids["call_1"] == short_id("call_1#1")
    assert ids["call_1"] != taken


def test_an_id_does_not_change_between_versions() -> None:
    assert short_id("call_1") == "RksXkbv4v"
    assert len(short_id("")) == tools.ID_CHARACTERS
