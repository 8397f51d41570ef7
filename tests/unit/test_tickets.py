"""The upload's token and the arithmetic of parts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tickets import MAX_PARTS, MIB, NoTicket, Ticket, TicketExpired, part_size_for, read_ticket, write_ticket

SECRET = "a secret of the system"
FIVE_MIB = 5 * MIB


def ticket(size: int = 12 * MIB, part_size: int = FIVE_MIB, lifetime_seconds: int = 60) -> Ticket:
    return Ticket("v1", "videos/v1/source/k", "s3-id", size, part_size, int(time.time()) + lifetime_seconds)


def test_a_ticket_comes_back_as_it_was_written() -> None:
    written = ticket()
    assert read_ticket(write_ticket(written, SECRET), SECRET) == written


@given(st.data())
def test_a_changed_ticket_is_refused(data: st.DataObject) -> None:
    token = write_ticket(ticket(), SECRET)
    # The last character carries unused bits, which a lenient decoder ignores.
    spot = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from("abcXYZ019-_. ").filter(lambda c: c != token[spot]))
    with pytest.raises(NoTicket):
        read_ticket(token[:spot] + other + token[spot + 1 :], SECRET)


@given(st.text(max_size=200))
def test_no_text_is_taken_for_a_ticket(text: str) -> None:
    with pytest.raises(NoTicket):
        read_ticket(text, SECRET)


def test_a_ticket_of_another_system_is_refused() -> None:
    with pytest.raises(NoTicket):
        read_ticket(write_ticket(ticket(), "another secret of another"), SECRET)


def test_an_expired_ticket_says_so() -> None:
    with pytest.raises(TicketExpired):
        read_ticket(write_ticket(ticket(lifetime_seconds=-1), SECRET), SECRET)


@given(st.integers(1, 2**46), st.sampled_from([FIVE_MIB, 8 * MIB, 512 * MIB]))
def test_parts_cover_every_size_without_gap_and_within_the_limit(size: int, smallest: int) -> None:
    cut = ticket(size, part_size_for(size, smallest))
    assert 1 <= cut.total_parts <= MAX_PARTS
    assert cut.part_size >= smallest
    assert cut.part_size * (cut.total_parts - 1) + cut.size_of(cut.total_parts) == size
    assert 1 <= cut.size_of(cut.total_parts) <= cut.part_size
