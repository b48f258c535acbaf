"""A provider's figures beside the ledger's."""

from datetime import date

from tollway.accounting.provider_export import Exported
from tollway.accounting.reconciliation import ALL_KEYS, NOTHING, Compared, Counted, Group, compare, operations_of

DAY, NEXT = date(2027, 1, 2), date(2027, 1, 3)


def test_versions_of_a_model_are_the_model_that_was_called() -> None:
    exported = [
        Exported(DAY, "gpt-4o-2024-08-06", "", 2, 20, 5, 4),
        Exported(DAY, "gpt-4o", "", 1, 10, 0, 2),
        Exported(DAY, "mistral-large-2411", "", 1, 7, 0, 1),
        Exported(DAY, "unknown-2024-08-06", "", 1, 1, 0, 1),
    ]
    ours = {
        Group(DAY, "gpt-4o", "key_a"): Counted(3, 30, 5, 6),
        Group(DAY, "mistral-large-latest", "key_a"): Counted(1, 7, 0, 2),
    }
    assert compare(exported, ours, {}) == [
        Compared(Group(DAY, "gpt-4o", ALL_KEYS), Counted(3, 30, 5, 6), Counted(3, 30, 5, 6)),
        Compared(Group(DAY, "mistral-large-latest", ALL_KEYS), Counted(1, 7, 0, 1), Counted(1, 7, 0, 2)),
        Compared(Group(DAY, "unknown-2024-08-06", ALL_KEYS), Counted(1, 1, 0, 1), NOTHING),
    ]


def test_a_version_that_was_called_by_its_name_stays_apart() -> None:
    ours = {Group(DAY, "gpt-4o", "k"): Counted(1, 1, 0, 0), Group(DAY, "gpt-4o-2024-08-06", "k"): Counted(2, 2, 0, 0)}
    exported = [Exported(DAY, "gpt-4o-2024-08-06", "", 2, 2, 0, 0), Exported(DAY, "gpt-4o", "", 1, 1, 0, 0)]
    assert all(one.theirs == one.ours for one in compare(exported, ours, {}))


def test_what_the_provider_does_not_say_is_not_compared() -> None:
    exported = [Exported(DAY, "m", "", None, 70, None, 0), Exported(DAY, "m", "", None, 0, None, 30)]
    ours = {Group(DAY, "m", "k"): Counted(3, 70, 9, 30), Group(NEXT, "m", "k"): Counted(1, 0, 0, 0)}
    one, other = compare(exported, ours, {})
    assert one == Compared(Group(DAY, "m", ALL_KEYS), Counted(None, 70, None, 30), Counted(3, 70, 9, 30))
    assert not one.differs and not other.differs
    assert one._replace(ours=Counted(3, 71, 9, 30)).differs
    (missing,) = compare([Exported(DAY, "m", "", None, 0, None, 0)], {Group(DAY, "m", "k"): Counted(1, 1, 0, 0)}, {})
    assert missing.differs


def test_an_export_of_one_kind_of_usage_is_compared_with_calls_of_that_kind() -> None:
    row = Exported(DAY, "m", "", 1, 1, 0, 0)
    assert operations_of([row]) is None, "it does not say"
    assert operations_of([row._replace(kind="embeddings")]) == ["embeddings"]
    assert operations_of([row._replace(kind="embeddings"), row._replace(kind="vector_stores")]) is None
    assert "responses" in (operations_of([row._replace(kind="completions")]) or ())


def test_keys_that_are_matched_are_compared_by_themselves() -> None:
    exported = [Exported(DAY, "m", "key_x", 1, 10, 0, 1), Exported(DAY, "m", "key_y", 1, 5, 0, 1)]
    ours = {
        Group(DAY, "m", "key_a"): Counted(1, 10, 0, 1),
        Group(DAY, "m", "key_b"): Counted(1, 3, 0, 1),
        Group(DAY, "m", "key_c"): Counted(0, 2, 0, 0),
        Group(NEXT, "m", "key_a"): Counted(1, 1, 0, 1),
    }
    assert compare(exported, ours, {"key_x": "key_a"}) == [
        Compared(Group(DAY, "m", ALL_KEYS), Counted(1, 5, 0, 1), Counted(1, 5, 0, 1)),
        Compared(Group(DAY, "m", "key_a"), Counted(1, 10, 0, 1), Counted(1, 10, 0, 1)),
        Compared(Group(NEXT, "m", "key_a"), NOTHING, Counted(1, 1, 0, 1)),
    ]
