"""Tables of text."""

from jaxsim.tables import format_table


def test_numbers_are_right_aligned_and_names_left():
    table = format_table(["policy", "steps"], [["dqn", 5], ["random", 12_000]])
    assert table.split("\n") == ["policy  steps", "dqn         5", "random  12000"]


def test_markdown():
    table = format_table(["policy", "steps"], [["dqn", 5]], markdown=True)
    assert table.split("\n") == ["| policy | steps |", "|--------|-------|", "| dqn    |     5 |"]


def test_markup_and_long_cells_are_left_as_they_are():
    cell = "[bold]" + "x" * 500
    assert cell in format_table(["a"], [[cell]])
