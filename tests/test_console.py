"""Terminal output: control characters are escaped, and an output that is gone does not end a run."""

import io
import subprocess
import sys

import pytest
from rich.table import Table

from cdred.cli.main import main
from cdred.console import SafeConsole
from cdred.data.formats.npz import save_npz
from cdred.demos.scripted import collect_scripted
from cdred.loggers.terminal import TerminalLogger
from cdred.text import printable

NAME = "red\x1b[31m[bold]:smile:"
SHOWN = r"red\x1b[31m[bold]:smile:"

# Shows a line, waits until the reader has gone, shows more.
RUN = """
import sys
from cdred.loggers.terminal import TerminalLogger
logger = TerminalLogger("task", 10, [0], False)
sys.stdin.readline()
for step in range(5):
    logger.message(f"message {step}")
logger.close()
print("last line", flush=True)
print("finished", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("text", "expected"), [(NAME, SHOWN), ("é – 1\n2", "é – 1\n2"), ("\x07\udc80\r", r"\x07\udc80\r")]
)
def test_printable(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize("show", [str, lambda text: Table(text, title=text)])
def test_console_shows_names_literally(show):
    file = io.StringIO()
    SafeConsole(file=file, width=200).print(show(NAME))
    assert "\x1b" not in file.getvalue()
    assert SHOWN in file.getvalue()


def test_dashboard_escapes_names_and_keeps_its_own_colours():
    file = io.StringIO()
    logger = TerminalLogger(NAME, 10, [0], False, console=SafeConsole(file=file, force_terminal=True, width=100))
    logger.message(NAME)
    logger.close()
    assert "\x1b[1m" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()
    assert file.getvalue().count(SHOWN) >= 2


@pytest.mark.parametrize("command", [["demos", "info"], ["eval"], ["report"], ["train", "probe/point", "--demos"]])
def test_commands_escape_the_names_of_missing_files(command, tmp_path, capsys):
    assert main([*command, str(tmp_path / NAME)]) == 2
    error = capsys.readouterr().err
    assert SHOWN in error
    assert "\x1b" not in error


def test_command_escapes_the_name_of_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_npz(collect_scripted("probe/point", 2), tmp_path / f"{NAME}.npz")
    assert main(["demos", "info", f"{NAME}.npz"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert SHOWN in text


def test_closed_pipe_does_not_end_a_run():
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "task\n"
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    lines = process.stderr.read().splitlines()
    process.stderr.close()
    assert process.wait() == 0
    notice, last = lines
    assert notice.startswith("cdred: standard output cannot be written (Broken pipe); the run goes on")
    assert last == "finished"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_of_a_log_does_not_end_a_run():
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", RUN], input="\n", stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert process.returncode == 0
    assert process.stderr.splitlines()[0].startswith("cdred: standard output cannot be written (No space left")


def test_run_without_standard_output():
    process = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, RUN], input="\n", stderr=subprocess.PIPE, text=True
    )
    assert (process.returncode, process.stderr) == (0, "finished\n")
