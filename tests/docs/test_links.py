"""Links, options, modules, commands and tests that the pages name exist."""

import importlib.util
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from cdred import RunConfig
from cdred.cli.bench import BenchOptions
from cdred.cli.compare import CompareOptions
from cdred.cli.demos import Collect, Convert, Info
from cdred.cli.doctor import DoctorOptions
from cdred.cli.evaluate import EvalOptions
from cdred.cli.export import ExportOptions
from cdred.cli.options import options_of
from cdred.cli.pull import PullOptions
from cdred.cli.push import PushOptions
from cdred.cli.report import ReportOptions
from cdred.cli.study import StudyOptions
from cdred.cli.sweep import SweepOptions
from cdred.cli.tasks import TasksOptions
from cdred.cli.train_expert import TrainExpertOptions
from doc_pages import all_blocks, code_blocks, headings

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]
# Pages that also name what no longer exists.
HISTORY = {"CHANGELOG.md"}
CURRENT = [page for page in PAGES if page.name not in HISTORY]
SETTINGS = (
    RunConfig,
    BenchOptions,
    CompareOptions,
    Collect,
    Convert,
    Info,
    DoctorOptions,
    EvalOptions,
    ExportOptions,
    PullOptions,
    PushOptions,
    ReportOptions,
    StudyOptions,
    SweepOptions,
    TasksOptions,
    TrainExpertOptions,
)
MAX_LINE = 120


def page_id(page):
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=page_id)
each_current_page = pytest.mark.parametrize("page", CURRENT, ids=page_id)


OPTIONS = set().union(*map(options_of, SETTINGS)) | {"--help", "--help-all"}


@each_page
def test_relative_links_resolve(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in headings(file)):
            broken.append(target)
    assert broken == []


@each_page
def test_lines_are_short(page):
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > MAX_LINE and not line.startswith("|")] == []


@each_current_page
def test_options_exist(page):
    others = ("benchmarks/", "pip ", "ray start ", "ray get-auth-token ")
    cdred_lines = [line for line in page.read_text().splitlines() if not any(other in line for other in others)]
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z\d]", "\n".join(cdred_lines)))
    groups = {f"--{field.name}" for field in fields(RunConfig)} | {"--lsail"}
    of_xla = {name for name in named if name.startswith("--xla_")}
    assert named - OPTIONS - of_xla <= groups


@each_page
def test_python_blocks_compile(page):
    for block in all_blocks(page):
        if block.language == "python":
            compile(block.code, str(page), "exec")


@each_current_page
def test_modules_and_files_exist(page):
    text = page.read_text()
    settings = {name.removeprefix("--").replace("-", "_") for name in OPTIONS}
    names = set(re.findall(r"`(cdred(?:\.[a-z_]+)+)`", text)) - settings
    assert {name for name in names if not exists(name)} == set()
    # With a commit behind it, a file is that of the commit.
    files = re.findall(r"`((?:src|tests|docs|examples|benchmarks)/[\w./-]+)`(?! at `)", text)
    guide_examples = {"src/cdred/algos/lsail.py"}
    assert {file for file in files if not (ROOT / file).exists()} <= guide_examples


def exists(name):
    """Return True for a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name) is not None


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [words for page in PAGES for words in re.findall(r"(?:`|^)make ([a-z -]+)", page.read_text(), re.M)]
    named = {word for words in commands for word in re.split(r" {2,}", words)[0].split()}
    assert {"train", "test", "lint", "type"} <= named <= targets


def test_new_options_of_the_changelog_exist():
    text = (ROOT / "CHANGELOG.md").read_text()
    rows = re.findall(r"^\| (.*--.*) \| (.*--.*) \|$", text.partition("**Options**")[2], re.M)
    before, now = (" ".join(column) for column in zip(*rows, strict=True))
    pattern = r"--[a-z][\w.-]*[a-z\d]"
    assert len(rows) > 20
    assert set(re.findall(pattern, now)) <= OPTIONS
    assert set(re.findall(pattern, before)) & options_of(RunConfig).keys() == set()


def test_tests_named_for_reliability_exist():
    rows = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", rows)
    assert len(named) > 40
    missing = []
    for file, test in named:
        path = ROOT / "tests" / file
        if not path.exists() or (test and not re.search(rf"^def {test}\(", path.read_text(), re.M)):
            missing.append((file, test))
    assert missing == []


def test_architecture_lists_the_import_layers():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    (block,) = code_blocks(ROOT / "docs" / "architecture.md", "text")
    assert block.splitlines() == layers


def test_index_lists_every_page():
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\((\w[\w/]*\.md)\)", (docs / "index.md").read_text()))
    assert linked == {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"index.md"}


def test_citation_matches_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    title = citation["preferred-citation"]["title"]
    assert title in (ROOT / "README.md").read_text()


def test_description_for_a_package_index_has_no_relative_links():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / project["readme"]).read_text())
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
