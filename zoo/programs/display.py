"""What a run prints: one table before training, one report after it."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def make_console() -> Console:
    """A console on stdout; 100 columns where stdout is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def print_table(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print rows of names and values.

    :param title: heading
    :param rows: name and value
    """
    table = Table(title=title, box=box.ROUNDED, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="cyan", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table, markup=False)
