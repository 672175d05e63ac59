"""Code blocks of the pages: run by a test or marked as not run, and commands that the real command line accepts."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from cdred.cli import demos
from cdred.cli.main import VERBS, main
from cdred.cli.options import options_of
from doc_pages import all_blocks, code_blocks

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCS, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md"]
LANGUAGES = {"sh", "python", "yaml", "text", "math", "bibtex"}
# Test files that run all blocks of a page in a language that are not marked as not run.
RUN_BY = {
    ("docs/add_a_format.md", "python"): "test_guides.py",
    ("docs/add_a_method.md", "python"): "test_guides.py",
    ("docs/add_a_suite.md", "python"): "test_guides.py",
    ("docs/deployment.md", "python"): "test_deployment.py",
    ("docs/quickstart.md", "python"): "test_quickstart.py",
    ("docs/quickstart.md", "sh"): "test_quickstart.py",
    ("docs/trackers.md", "python"): "test_guides.py",
    ("docs/tutorial.md", "python"): "test_tutorial.py",
    ("docs/tutorial.md", "sh"): "test_tutorial.py",
}


def page_id(page):
    return str(page.relative_to(ROOT))


class ParsedError(BaseException):
    """Raised instead of running a command that was parsed; not an `Exception`, so that nothing handles it."""


def raise_parsed(parse):
    def parse_only(*args, **kwargs):
        parse(*args, **kwargs)
        raise ParsedError

    return parse_only


@pytest.fixture
def parse(monkeypatch):
    """Return a function that parses the words of a command by the module that would run it."""
    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", raise_parsed(tyro.extras.subcommand_cli_from_dict))
    for module in {module for module, _ in VERBS.values()} - {demos.__name__}:
        module = importlib.import_module(module)
        monkeypatch.setattr(module, "parse_options", raise_parsed(module.parse_options))

    def parse(arguments):
        with pytest.raises(ParsedError):
            assert main(arguments) == 0, shlex.join(arguments)

    return parse


@pytest.mark.parametrize("page", DOCS, ids=page_id)
def test_block_is_run_or_marked(page):
    blocks = all_blocks(page)
    assert page.read_text().count("<!-- not run") == sum(block.reason is not None for block in blocks)
    assert {block.language for block in blocks} <= LANGUAGES
    # In a list it would be no block of the site, nor seen here.
    assert re.findall(r"^ +```", page.read_text(), re.M) == []
    to_run = [block for block in blocks if block.language in ("sh", "python") and block.reason is None]
    neither = [block.code for block in to_run if (page_id(page), block.language) not in RUN_BY]
    assert neither == [], "run by no test and not marked as not run"


@pytest.mark.parametrize(("page", "language"), RUN_BY)
def test_run_page_is_read_by_its_test(page, language):
    assert code_blocks(ROOT / page, language)
    assert Path(page).name in (Path(__file__).parent / RUN_BY[page, language]).read_text()


def commands(page):
    """Return the commands of cdred in the page's shell blocks, without what is before them on the line."""
    lines = [line for block in all_blocks(page) if block.language == "sh" for line in block.lines]
    found = [re.match(r"(?:\w+=\S+ |\S*/)*cdred (.*)", line) for line in lines]
    # A number that the reader chooses.
    return [re.sub(r"\bN\b", "1", match[1]) for match in found if match]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_commands_are_accepted(page, parse, capsys):
    for command in commands(page):
        parse(shlex.split(command, comments=True))
    assert capsys.readouterr().err == ""


def test_unknown_option_is_not_accepted(parse, capsys):
    for command in ("train dmc/walker-walk --demonstrations 10", "demos info x.npz --plots y.png", "eval"):
        with pytest.raises(AssertionError):
            parse(command.split())
    assert "unknown option --demonstrations" in capsys.readouterr().err


def verb_options(verb):
    """Return the options of a verb by the names that its help shows."""
    module = importlib.import_module(VERBS[verb][0])
    return set().union(*(options_of(cls) for cls in vars(module).values() if is_options(cls, module))) | {"--help"}


def is_options(value, module):
    return (
        isinstance(value, type)
        and hasattr(value, "__dataclass_fields__")
        and value.__module__
        in (
            module.__name__,
            "cdred.cli.demos_render",
            "cdred.config",
        )
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_in_the_text_belong_to_their_verb(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for command in re.findall(r"`cdred ([a-z][^`]+)`", text):
        verb, *words = command.replace("\\|", " ").replace("[", " ").replace("]", " ").split()
        assert verb in VERBS, command
        options = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert options <= verb_options(verb) | {"--help-all"}, command
