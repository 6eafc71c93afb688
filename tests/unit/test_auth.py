"""Who may listen where without keys."""

import pytest

from tidegate.core.errors import BadInput
from tidegate.gateway.auth import check_open_bind


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_listen_without_keys(host: str) -> None:
    check_open_bind(host, "gateway")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.4", "127.evil.example", "localhost.evil.example", "::1234", ""]
)
def test_anything_else_is_refused_in_one_sentence(host: str) -> None:
    with pytest.raises(BadInput, match="without keys tidegate listens on loopback only"):
        check_open_bind(host, "gateway")
