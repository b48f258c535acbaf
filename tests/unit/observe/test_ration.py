"""What has no line is counted and told when its second is over, whether anything follows or not."""

from tollway.observe.ration import Ration


class Told:
    """A ration of three lines a second, and what it told."""

    def __init__(self) -> None:
        self.now = 10.0
        self.left_out: list[tuple[str, int]] = []
        self.ration = Ration(3, lambda label, count: self.left_out.append((label, count)), lambda: self.now)


def test_so_many_lines_of_a_kind_are_printed_and_the_rest_is_told_once() -> None:
    told = Told()
    assert [told.ration.takes("a") for _ in range(5)] == [True, True, True, False, False]
    assert told.ration.takes("b")
    assert [told.ration.takes("b", 1) for _ in range(2)] == [False, False]
    told.ration.turn()
    assert told.left_out == []
    told.now = 11.0
    for _ in range(2):
        told.ration.turn()
        assert told.left_out == [("a", 2), ("b", 2)]
    assert told.ration.takes("a")


def test_lines_may_be_taken_many_at_once() -> None:
    told = Told()
    assert told.ration.room() == 3
    told.ration.print(2)
    told.ration.leave_out(1000)
    assert told.ration.room() == 1
    told.now = 12.5
    assert told.ration.room() == 3
    assert told.left_out == [("", 1000)]
