"""Reading CSV with Arrow must not abort the process. tests/prep/sources/test_table_file.py reads real tables."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_command_that_ends_with_an_error_is_not_aborted(tmp_path):
    """Threads of Arrow that still ran at the end once aborted a third of such processes, with exit code 134."""
    table = tmp_path / "my.csv"
    table.write_text("user,item,rating\na,x,5\nb,y,five\n", "utf-8")
    command = [sys.executable, "-m", "prep", "build", str(table), "--like-threshold", "3"]
    command += ["--strict", "--annotate", "none", "--out", str(tmp_path / "out")]
    for _ in range(8):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 2, process.stderr
        line = "rating is not a finite number (--strict stops here)"
        assert process.stderr == f"error: {table}:3: {line}\n"
