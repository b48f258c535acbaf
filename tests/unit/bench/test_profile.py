"""From stacks to a table."""

from bench.profile import summary


def test_a_function_owns_its_leaves_and_counts_once_where_it_recurs() -> None:
    table = summary(["main (a.py:1);walk (a.py:5);walk (a.py:5) 30", "main (a.py:2);walk (a.py:6);hash (b.py:1) 10"])
    assert table.splitlines()[1:] == [
        "  75.0%  100.0%  walk (a.py)",
        "  25.0%   25.0%  hash (b.py)",
    ]
