"""What the database takes for a provider's address is exactly what the processes that read it take."""

import asyncio
import contextlib
import ipaddress
import itertools
import random
from collections.abc import Iterator

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.connections import connected
from tollway.routing.addresses import base_url_problem

METADATA = ("169.254.169.254", "169.254.0.0", "169.254.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192")
NEAR = ("169.253.255.255", "169.255.0.0", "100.100.100.199", "168.63.129.17", "192.0.0.193", "10.0.0.1", "127.0.0.1")
FORBIDDEN_V6 = ("fe80::1", "febf:ffff::", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42")
NEAR_V6 = ("fec0::1", "fe7f::1", "fd00:ec3::254", "fd20:ce::255", "fd00:42::41", "::1", "::", "2606:4700::1111")


def wrapped(four: str) -> Iterator[int]:
    """Every IPv6 address that carries an IPv4 one."""
    bits = int(ipaddress.IPv4Address(four))
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "64:ff9b:1:abcd::"):
        yield int(ipaddress.IPv6Address(prefix)) | bits
    local = int(ipaddress.IPv6Address("64:ff9b:1::"))
    yield local | bits << 24
    yield local | (bits >> 24) << 64 | (bits & 0xFFFFFF) << 32
    yield local | (bits >> 16) << 64 | (bits & 0xFFFF) << 40
    yield int(ipaddress.IPv6Address("2002::")) | bits << 80
    yield int(ipaddress.IPv6Address("2001::")) | bits << 64 | ~0x08080808 & 0xFFFFFFFF
    yield int(ipaddress.IPv6Address("2001:0:808:808::")) | ~bits & 0xFFFFFFFF
    yield int(ipaddress.IPv6Address("2001:db8::5efe:0:0")) | bits
    yield int(ipaddress.IPv6Address("2001:db8::200:5efe:0:0")) | bits


def spellings(bits: int) -> Iterator[str]:
    """The same IPv6 address in different letters."""
    address = ipaddress.IPv6Address(bits)
    dotted = str(ipaddress.IPv4Address(bits & 0xFFFFFFFF))
    yield from (str(address), str(address).upper(), address.exploded)
    yield ":".join(address.exploded.split(":")[:6]) + ":" + dotted
    groups = [f"{int(group, 16):x}" for group in address.exploded.split(":")]
    yield ":".join(groups)
    yield ":".join(groups[:6]) + ":" + dotted
    for start, end in itertools.combinations(range(9), 2):
        if set(groups[start:end]) == {"0"}:
            yield ":".join(groups[:start]) + "::" + ":".join(groups[end:])
            if end <= 6:
                yield ":".join(groups[:start]) + "::" + ":".join([*groups[end:6], dotted])


async def problems(connection: asyncpg.Connection, urls: list[str]) -> list[str | None]:
    rows = await connection.fetch(
        "SELECT tollway.address_problem(url) AS problem FROM unnest($1::text[]) WITH ORDINALITY AS u (url, n) "
        "ORDER BY n",
        urls,
    )
    return [row["problem"] for row in rows]


async def assert_agreement(connection: asyncpg.Connection, urls: list[str]) -> None:
    found = await problems(connection, urls)
    different = [
        (url, theirs, ours)
        for url, theirs in zip(urls, found, strict=True)
        if (theirs is None) != ((ours := base_url_problem(url)) is None)
    ]
    assert not different, different[:20]


async def test_no_spelling_hides_a_metadata_service(postgres_url: str) -> None:
    six = [
        *itertools.chain.from_iterable(wrapped(four) for four in METADATA),
        *(int(ipaddress.IPv6Address(text)) for text in FORBIDDEN_V6),
    ]
    urls = [f"http://[{text}]:80/v1" for bits in six for text in spellings(bits)]
    urls += [f"https://{four}{dots}/latest" for four in METADATA for dots in ("", ".", "..")]
    urls += [f"http://{name}{dots}" for name in ("metadata", "METADATA.GOOGLE.INTERNAL") for dots in ("", ".", "..")]
    assert [url for url in urls if base_url_problem(url) is None] == []
    async with connected(postgres_url) as connection:
        found = await problems(connection, urls)
    assert [url for url, problem in zip(urls, found, strict=True) if problem is None] == []
    assert len(urls) > 1500


async def test_neighbours_of_metadata_services_are_addresses_as_others_are(postgres_url: str) -> None:
    six = [
        *itertools.chain.from_iterable(wrapped(four) for four in NEAR),
        *(int(ipaddress.IPv6Address(text)) for text in NEAR_V6),
    ]
    urls = [f"http://[{text}]/v1" for bits in six for text in spellings(bits)] + [f"http://{four}" for four in NEAR]
    assert [url for url in urls if base_url_problem(url) is not None] == []
    async with connected(postgres_url) as connection:
        await assert_agreement(connection, urls)


ODD_HOSTS = [
    *("", ".", "..", "1..2", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.04", "0x", "0x.1", "0X7F.1", "1e1"),
    *("00", "0", "1.2.3.4.", "1.2.3.4..", "0.0.0.0", "255.255.255.255", "255.255.255.256", "1.2.3.4a", "a.1", "-", "_"),
    *("[::ffff:1.2.3]", "[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]", "[1::3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8::]", "[:::]"),
    *("[1:2:3:4:5:6:7::8]", "[::1::]", "[:1]", "[1:]", "[1:2:3:4:5:6:7:]", "[:2:3:4:5:6:7:8]", "[12345::]", "[::g]"),
    *("[::01.2.3.4]", "[::1.2.3.4.5]", "[::1.2.3.256]", "[1:2:3:4:5:6:7:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", "[.]"),
    *("[1.2.3.4::]", "[1.2.3.4]", "[:1.2.3.4]", "[::1.2.3.4:1]", "[1::1.2.3.4]", "[1:2:3:4:5::1.2.3.4]", "[::]"),
    *(
        "[1:2:3:4:5:6::1.2.3.4]",
        "[::1%25eth0]",
        "[::1/64]",
        "[::1]]",
        "[[::1]",
        "[:]",
        "[::",
        "::1]",
        "[v1.a]",
        "[ ::1]",
    ),
    *("\u0130.example", "metadata.google.\u0131nternal", "METADATA.GOOGLE.INTERNAL.", "\u212a.example", "\uff11.1.1.1"),
]
AROUND = [
    "http://{}",
    "HTTPS://{}/",
    "https://{}:8443/v1",
    "http://{}:0",
    "http://{}:00080/a//b",
    "http://{}:65536",
    "{}",
]
PATHS = ["/" + letter for letter in map(chr, range(1, 128))] + [
    "/%",
    "/a b",
    "/\u00e4",
    "?",
    "#",
    "/?",
    "//",
    "/:@",
    "\n",
]


async def test_odd_addresses_are_judged_alike(postgres_url: str) -> None:
    urls = [around.format(host) for host in ODD_HOSTS for around in AROUND]
    urls += [f"http://h{path}" for path in PATHS] + ["http:/h", "http:h", "http\u017f://h", " http://h", "http://h "]
    urls += ["http://h:", "http://h:-1", "http://h:1e3", "http://h:\u0661", "builtin:", "builtin:a", "builtin:A\n"]
    urls += ["http://" + "a" * length for length in (252, 253, 254)]
    async with connected(postgres_url) as connection:
        await assert_agreement(connection, urls)


async def test_many_random_addresses_are_judged_alike(postgres_url: str) -> None:
    source = random.Random(4711)

    def group() -> str:
        return source.choice(
            ["0", "0", "ffff", "64", "ff9b", "2002", "a9fe", "5efe", f"{source.getrandbits(16):x}", "00001"]
        )

    def quad() -> str:
        return ".".join(
            str(source.choice([0, 1, 169, 254, 100, 200, 255, 256, source.getrandbits(8)])) for _ in range(4)
        )

    def six() -> str:
        groups = [group() for _ in range(source.randint(0, 9))]
        if source.random() < 0.7:
            groups.insert(source.randint(0, len(groups)), "")
        if source.random() < 0.3:
            groups.append(quad())
        text = ":".join(groups)
        return f"[{source.choice(['', ':'])}{text}{source.choice(['', ':'])}]"

    def four() -> str:
        parts = [
            source.choice(["0x%x", "%o", "0%o", "%d", "%d", "%d"])
            % source.choice([0, 169, 254, source.getrandbits(10)])
            for _ in range(source.randint(1, 5))
        ]
        return ".".join(parts)

    urls = [f"http://{source.choice([six, six, four, quad])()}/v1" for _ in range(30_000)]
    async with connected(postgres_url) as connection:
        await assert_agreement(connection, urls)


PIECES = st.sampled_from(
    [
        *("http", "HTTPS", "://", ":", "/", "//", "[", "]", "::", "ffff", "64:ff9b", "2002:", "a9fe", "169.254", "0x"),
        *("1", "0", ".", "443", "metadata", "google", "internal", "builtin:", "demo", "%2F", "@", "?", "\n", "\u0130"),
    ]
)


@pytest.fixture
def judge(postgres_url: str) -> Iterator["Judge"]:
    with contextlib.closing(Judge(postgres_url)) as made:
        yield made


class Judge:
    """Asks the database from tests that are no coroutines."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))

    def check(self, urls: list[str]) -> None:
        self._loop.run_until_complete(assert_agreement(self._connection, urls))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


def test_no_text_is_accepted_by_one_and_refused_by_the_other(judge: Judge) -> None:
    texts = st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        st.lists(PIECES, max_size=10).map("".join),
        st.lists(PIECES, max_size=8).map(lambda pieces: "http://" + "".join(pieces)),
    )

    @settings(max_examples=200)
    @given(st.lists(texts, min_size=20, max_size=40))
    def check(urls: list[str]) -> None:
        judge.check(urls)

    check()
