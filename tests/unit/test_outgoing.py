"""Calls to others are signed so that any library of Standard Webhooks takes them, and never lead into our own network."""

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agents.webhooks.delivery import LONGEST_BACK_OFF_SECONDS, back_off_seconds
from compose.outgoing import Guard, WrongAddress, check_url, is_public, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def headers(body: bytes, *, secret: str = SECRET) -> dict[str, str]:
    now = int(datetime.now(UTC).timestamp())
    return {
        "webhook-id": "e-1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, "e-1", now, body),
    }


def test_another_library_takes_our_signature() -> None:
    body = '{"title": "Amélie"}'.encode()
    assert Webhook(SECRET).verify(body, headers(body)) == {"title": "Amélie"}


def test_another_library_refuses_a_changed_body_and_another_secret() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"a": 2}', headers(b'{"a": 1}'))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b"{}", headers(b"{}", secret="whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
    ],
)
def test_an_address_of_a_private_network_is_known_in_every_disguise(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_an_address_of_the_open_internet_is_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "http://user:word@example.org/",
        "https://example.org/#part",
        "http://127.0.0.1:9200/",
        "http://[::1]/",
        "http://localhost/",
        "http://a.localhost./",
        "http://example.org:70000/",
        "https://example.org/" + "x" * 3_000,
    ],
)
def test_what_is_no_address_to_call_is_refused_in_words(url: str) -> None:
    with pytest.raises(WrongAddress, match="must"):
        check_url(url, allow_private=False)


def test_a_private_address_is_called_only_where_a_setting_says_so() -> None:
    assert check_url("http://127.0.0.1:9000/hook", allow_private=True).port == 9_000


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
async def test_a_name_that_leads_into_a_private_network_is_not_connected_to(host: str) -> None:
    with pytest.raises(OSError, match="private network"):
        await Guard(allow_private=False).resolve(host, 80)


def test_a_retry_waits_longer_each_time_and_never_shorter_than_it_was_asked_to() -> None:
    waits = [max(back_off_seconds(attempts, None) for _ in range(50)) for attempts in (1, 4, 8)]
    assert waits == sorted(waits)
    assert back_off_seconds(40, None) <= LONGEST_BACK_OFF_SECONDS
    assert back_off_seconds(1, 30.0) >= 30.0
