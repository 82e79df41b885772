"""Signatures: what we sign, the receivers' own code accepts, and nothing else."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from shared.clock import SystemClock
from shared.domain import signing
from shared.domain.signing import SecretError

KEYS = st.binary(min_size=24, max_size=64).filter(any)
SECRETS = KEYS.map(lambda key: "whsec_" + base64.b64encode(key).decode())
BODIES = st.text().map(str.encode)


def now_s() -> int:
    return int(SystemClock().now().timestamp())


def accepts(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


@given(SECRETS, BODIES)
def test_a_standard_signature_is_accepted_by_the_receivers_library(
    secret: str, body: bytes
) -> None:
    headers = signing.sign_standard([secret], event_id="evt", timestamp_s=now_s(), body=body)

    assert accepts(secret, headers, body)


@given(SECRETS, SECRETS, BODIES)
def test_during_a_rotation_every_live_secret_verifies_and_no_other(
    old: str, new: str, body: bytes
) -> None:
    other = signing.new_secret()

    headers = signing.sign_standard([new, old], event_id="evt", timestamp_s=now_s(), body=body)

    assert [accepts(secret, headers, body) for secret in (new, old, other)] == [True, True, False]


def test_a_changed_body_id_or_moment_is_refused() -> None:
    secret = signing.new_secret()
    headers = signing.sign_standard([secret], event_id="evt", timestamp_s=now_s(), body=b"{}")
    later = str(int(headers["webhook-timestamp"]) + 1)

    assert not accepts(secret, headers, b"{ }")
    assert not accepts(secret, {**headers, "webhook-id": "evt2"}, b"{}")
    assert not accepts(secret, {**headers, "webhook-timestamp": later}, b"{}")


def test_an_old_moment_is_refused_by_the_receiver() -> None:
    secret = signing.new_secret()

    headers = signing.sign_standard([secret], event_id="e", timestamp_s=now_s() - 900, body=b"{}")

    assert not accepts(secret, headers, b"{}")


def test_the_standards_own_example_is_reproduced() -> None:
    headers = signing.sign_standard(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(SECRETS, BODIES, st.integers(min_value=0, max_value=2**33))
def test_a_promptjuggler_signature_is_keyed_with_the_secrets_text(
    secret: str, body: bytes, timestamp_s: int
) -> None:
    headers = signing.sign_promptjuggler(secret, timestamp_s=timestamp_s, body=body)

    expected = hmac.new(secret.encode(), str(timestamp_s).encode() + b"." + body, hashlib.sha256)
    assert {"PromptJuggler-Signature": f"t={timestamp_s},v1={expected.hexdigest()}"} == headers


def test_a_new_secret_holds_32_random_bytes() -> None:
    first, second = signing.new_secret(), signing.new_secret()

    assert first != second
    assert len(signing.parse_secret(first)) == 32


@given(KEYS)
def test_any_key_of_24_to_64_bytes_is_read(key: bytes) -> None:
    assert key == signing.parse_secret("whsec_" + base64.b64encode(key).decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        base64.b64encode(b"k" * 32).decode(),
        "WHSEC_" + base64.b64encode(b"k" * 32).decode(),
        "whsec_" + base64.b64encode(b"k" * 23).decode(),
        "whsec_" + base64.b64encode(b"k" * 65).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(b"k" * 32).decode().rstrip("="),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_" + base64.b64encode(b"k" * 32).decode() + "\n",
        "whsec_ " + base64.b64encode(b"k" * 32).decode(),
        "whsec_" + base64.b64encode(b"k" * 32).decode()[:-2] + "t=",
        "whsec_" + "é" * 32,
        "whsec_not base64 at all, but long enough",
    ],
)
def test_a_secret_that_nobody_should_use_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SecretError) as refused:
        signing.parse_secret(text)

    assert [flaw.pointer for flaw in refused.value.flaws] == ["/secret"]
    assert refused.value.status == 422
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in str(refused.value)


@given(st.text())
def test_no_text_breaks_the_reader_of_secrets(text: str) -> None:
    with pytest.raises(SecretError):
        signing.parse_secret("whsec_" + text[:20])
