"""Keys: their shape, what is kept of them, and that no text but a key's own is ever taken for it."""

from __future__ import annotations

import re
import statistics
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.cli.keys import duration_s
from tidegate.core.errors import BadInput, Forbidden
from tidegate.core.keys import (
    ENTROPY_BYTES,
    MEANINGS,
    OPEN,
    RIGHTS,
    ROLES,
    Access,
    Key,
    KeyLine,
    KeyRing,
    Role,
    Wanted,
    check,
    fingerprint,
    keys_of,
    mint,
    seal_key,
)
from tidegate.core.secrets import find_secrets

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
AT = "2026-03-01T12:00:00.000000Z"


def key_of(token: str, **fields: Any) -> Key:
    made = Key(token[3:11], "shop", "caller", fingerprint(token), AT, "ada")
    return msgspec.structs.replace(made, **fields)


@given(ENTROPY)
@example(bytes(ENTROPY_BYTES))
@example(b"\xff" * ENTROPY_BYTES)
def test_a_key_has_one_shape_and_carries_all_of_its_256_bits(entropy: bytes) -> None:
    token, prefix = mint(entropy)
    assert re.fullmatch(rf"tg_{prefix}_[0-9A-Za-z]{{43}}", token)
    assert re.fullmatch(r"[0-9a-z]{8}", prefix)
    flipped = bytes([entropy[0] ^ 0x80]) + entropy[1:]
    assert mint(flipped)[0][12:] != token[12:]
    assert [secret.kind for secret in find_secrets(f"key: {token}.")] == ["a tidegate key"]


@given(st.lists(ENTROPY, unique_by=lambda entropy: entropy[:32], min_size=2, max_size=2), st.data())
def test_distinct_texts_are_never_taken_for_one_another(entropies: list[bytes], data: st.DataObject) -> None:
    """Also when all but the last character is the same: nothing less than the whole text is ever compared."""
    first, second = (mint(entropy)[0] for entropy in entropies)
    ring = KeyRing([key_of(first)])
    assert ring.owner(first) is not None
    cut = data.draw(st.integers(0, len(first)))
    for other in (second, first[:cut] + second[cut:], first[:cut], first + data.draw(st.text(min_size=1))):
        assert other == first or ring.owner(other) is None


@given(st.text())
@example("tg_\ud800")
@example("")
def test_no_text_breaks_the_ring(text: str) -> None:
    assert KeyRing([key_of(mint(bytes(ENTROPY_BYTES))[0])]).owner(text) is None


def test_what_is_kept_opens_nothing() -> None:
    token, prefix = mint(bytes(range(ENTROPY_BYTES)))
    key = key_of(token)
    ring = KeyRing([key])
    for leaked in (key.sha256, bytes.fromhex(key.sha256).decode("latin-1"), prefix, f"tg_{prefix}_{key.sha256}"):
        assert ring.owner(leaked) is None


def test_a_look_is_cheap() -> None:
    """3 µs is the promise; this machine is shared, so the best of many tries counts, with room above it."""
    tokens = [mint(bytes([number]) * ENTROPY_BYTES)[0] for number in range(200)]
    ring = KeyRing([key_of(token) for token in tokens])
    times = []
    for _ in range(50):
        began = time.perf_counter()
        for token in tokens:
            owner = ring.owner(token)
            assert owner is not None
            ring.access(owner.prefix, 1)
        times.append((time.perf_counter() - began) / len(tokens))
    assert statistics.median(sorted(times)[:10]) < 10e-6


def test_a_role_can_all_that_a_smaller_one_can() -> None:
    assert RIGHTS["viewer"] < RIGHTS["editor"] < RIGHTS["deployer"] < RIGHTS["admin"] == OPEN.rights
    assert RIGHTS["caller"] < RIGHTS["editor"]
    assert not RIGHTS["caller"] & RIGHTS["viewer"]
    assert set(MEANINGS) == RIGHTS["admin"]


@pytest.mark.parametrize("role", ROLES)
def test_a_missing_right_names_the_roles_that_have_it(role: Role) -> None:
    access = Access(RIGHTS[role])
    for right in MEANINGS:
        if access.may(right):
            access.require(right)
        else:
            with pytest.raises(Forbidden, match=r"this key may not .* that takes the role .*admin\."):
                access.require(right)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "can not be a key's name"),
        ({"name": "a b"}, "can not be a key's name"),
        ({"name": "a\n"}, "can not be a key's name"),
        ({"name": "x" * 65}, "can not be a key's name"),
        ({"role": "root"}, "'root' is no role"),
        ({"role": "admin", "prompts": ("a",)}, "an admin makes keys, and so can not be limited"),
        ({"role": "viewer", "environments": ("staging",)}, "a viewer reads all of the project"),
        ({"prompts": ()}, "--prompts: names nothing"),
        ({"prompts": ("a", "")}, "--prompts: '' is not a name"),
        ({"models": ("a*b",)}, "'a\\*b' is not a name, or the beginning of one"),
        ({"models": ("a\nb",)}, "is not a name"),
        ({"environments": ("*",)}, "write each name out"),
    ],
)
def test_a_key_that_would_not_be_what_it_seems_is_not_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(msgspec.structs.replace(Wanted("ci", "deployer"), **fields))


def test_keys_are_what_their_lines_say() -> None:
    make = KeyLine("1", "create", "aaaaaaaa", "ci", AT, "ada", "deployer", "ab" * 32, prompts=("a",))
    other = KeyLine("2", "create", "bbbbbbbb", "ci", AT, "ada", "viewer", "cd" * 32)
    revoke = KeyLine("3", "revoke", "aaaaaaaa", "ci", "2026-03-02T12:00:00.000000Z", "sam")
    first, second = keys_of([make, other, revoke])
    assert (first.prefix, first.role, first.prompts, first.created_by) == ("aaaaaaaa", "deployer", ("a",), "ada")
    assert (first.revoked_at, first.revoked_by) == ("2026-03-02T12:00:00.000000Z", "sam")
    assert (second.prefix, second.revoked_at) == ("bbbbbbbb", None)
    assert "ab" * 32 not in repr([make, first])
    for field in KeyLine.__struct_fields__:
        changed = msgspec.structs.replace(make, **{field: None if field == "role" else "x"})
        assert seal_key(changed, "default", "") != seal_key(make, "default", "")


def test_a_duration_is_a_number_and_a_unit() -> None:
    assert [duration_s(text) for text in ("90d", "12h", "30m", "2w")] == [7_776_000, 43_200, 1_800, 1_209_600]
    for wrong in ("90", "d", "0d", "-1d", "1.5d", "90 d", "90days", "9999999d"):
        with pytest.raises(BadInput, match="write a number and m, h, d or w"):
            duration_s(wrong)
