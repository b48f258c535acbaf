"""As many descriptors as the system gives."""

import resource

import pytest

from tollway import supervisor

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("now", "most", "system", "expected"),
    [
        (256, 20_000, 10**9, 20_000),
        (20_000, 20_000, 10**9, 20_000),
        (256, INFINITY, 10**9, 2**20),
        (256, INFINITY, 10_240, 8192),  # macOS
        (256, 300, 0, 256),  # nothing can be had
        (INFINITY, INFINITY, 10**9, INFINITY),
    ],
)
def test_the_limit_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, now: int, most: int, system: int, expected: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: (now, most), resource.RLIMIT_CORE: (1, 1)}

    def setrlimit(kind: int, wanted: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_NOFILE and wanted[0] > system:
            raise ValueError("current limit exceeds maximum limit")
        limits[kind] = wanted

    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    supervisor.raise_limits()
    assert limits == {resource.RLIMIT_NOFILE: (expected, most), resource.RLIMIT_CORE: (0, 0)}
