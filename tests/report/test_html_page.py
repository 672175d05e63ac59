"""The HTML report without a browser: structure, numbers, escaping, unfinished and damaged runs, videos, size."""

import json
from pathlib import Path

import numpy as np
import pytest

from cdred.cli.main import main
from cdred.config_file import to_yaml
from cdred.errors import UserError
from cdred.loggers.metrics import JsonlLogger
from cdred.report.find_runs import find_runs
from cdred.report.html import videos
from cdred.report.html.page import write_html
from cdred.report.html.seed_groups import read_runs
from cdred.report.html.summary import Estimate, improvement, normalized_iqm
from cdred.report.statistics import bootstrap_interval, improvement_interval, iqm
from html_pages import Page, check_page
from report_runs import write_run

FINAL = "Success of the final evaluation."
MATRIX = "Final scores: mean over the seeds, below it each seed. Bold: the highest mean of a task."
# What no YAML has, such as half of a character, is only in the second.
TEXT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
HOSTILE = f"{TEXT}\x1b[2J\ud800"


def page_of(tmp_path: Path, *paths: Path) -> Page:
    return check_page(
        write_html(tmp_path / "page.html", find_runs(paths or [tmp_path / "runs"])).read_text(encoding="utf-8")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of five runs: three methods on a task, one of them unfinished, and two on a task without success."""
    runs = tmp_path / "runs"
    write_run(runs / "lift" / "cdred")
    write_run(runs / "lift" / "bc", algo="bc", success=(0.5, 0.5, 0.0), returns=(60.0, 70.0, 20.0))
    write_run(runs / "lift" / "gail", algo="gail", finished=False)
    write_run(runs / "walk" / "cdred", task="suite/walk", success=None, returns=(90.0, 80.0, 70.0))
    write_run(runs / "walk" / "bc", task="suite/walk", algo="bc", success=None, returns=(85.0, 40.0, 70.0))
    return runs


def test_tables_have_the_scores_of_each_run(tmp_path, folder):
    page = page_of(tmp_path, folder)
    heads, cdred, gail, bc = page.tables[FINAL]
    assert heads[:5] == [
        "method",
        "success per seed",
        "mean",
        "normalized return, IQM (95 % interval)",
        "P(cdred better) by return",
    ]
    low, high = bootstrap_interval([[0.5, 0.75, 1.0]])
    assert cdred[:5] == ["cdred", "50 · 75 · 100", "75 %", f"0.75 ({low:.2f} to {high:.2f})", "–"]
    # Of 60, 70 and 20, 60 beats one and ties with one, 85 and 110 beat all three.
    assert bc[:3] + bc[4:8] == ["bc", "50 · 50 · 0", "33 %", f"{(1.5 + 3 + 3) / 9:.2f}", "25 %", "20", "200"]
    assert gail == ["gail", *["–"] * 4, "25 %", "–", "120", "–", "\nunfinished, step 120 of 200"]


def test_matrix_has_tasks_methods_and_statistics_over_tasks(tmp_path, folder):
    heads, lift, walk, pooled, better = page_of(tmp_path, folder).tables[MATRIX]
    assert heads == ["task", "cdred", "gail", "bc", "pretrained (BC)"]
    unfinished = "unfinished, step 120 of 200"
    assert lift[:4] == [
        "suite/lift\nsuccess\nexpert 100 %, random 5 %",
        "75 %\n50 · 75 · 100",
        unfinished,
        "33 %\n50 · 50 · 0",
    ]
    assert lift[4:] == ["25 %"]
    assert walk == [
        "suite/walk\nnormalized return\nexpert 1.00, random 0.00",
        "0.70\n0.80 · 0.70 · 0.60",
        "not run",
        "0.55\n0.75 · 0.30 · 0.60",
        "0.00",
    ]
    scores = [[0.5, 0.75, 1.0], [0.8, 0.7, 0.6]]
    low, high = bootstrap_interval(scores)
    assert pooled[1] == f"{iqm([*scores[0], *scores[1]]):.2f}\n{low:.2f} to {high:.2f}\n2 tasks"
    assert pooled[2] == "–"
    pairs = [([60.0, 85.0, 110.0], [60.0, 70.0, 20.0]), ([90.0, 80.0, 70.0], [85.0, 40.0, 70.0])]
    low, high = improvement_interval(pairs)
    assert better[1:3] == ["–", "–"]
    assert better[3] == f"{(7.5 / 9 + 6.5 / 9) / 2:.2f}\n{low:.2f} to {high:.2f}\n2 tasks"


def test_one_seed_has_no_interval(tmp_path):
    runs = read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", algo="bc", returns=(10.0, 60.0, 60.0))])
    for run in runs:
        for key in ("return", "normalized"):
            del run.metadata["eval"][key][1:]
    assert normalized_iqm(runs[:1]) == Estimate(0.5, None)
    assert improvement([(runs[0], runs[1])]) == Estimate(1.0, None)


def test_unknown_scores_are_no_zeros(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    content = json.loads((run / "result.json").read_text())
    content["eval"] |= {"success": [0.5, None, 1.0], "normalized": None, "return": [60.0, float("nan"), 110.0]}
    content |= {"commit": None, "versions": {}, "device": None, "demos_provenance": None, "wall_seconds": None}
    (run / "result.json").write_text(json.dumps(content))
    page = page_of(tmp_path, run, write_run(tmp_path / "runs" / "b", algo="bc"))
    assert page.tables[FINAL][1][:4] == ["cdred", "50 · – · 100", "75 %", "–"]
    assert page.text.count("commitunknown") == 1
    assert page.text.count("packagesunknown") == 1
    assert "deviceunknown" in page.text
    assert "Their provenance: unknown." in page.text


def test_unfinished_run_shows_its_last_step_and_evaluation(tmp_path):
    page = page_of(tmp_path, write_run(tmp_path / "run", finished=False))
    assert "Unfinished, step 120 of 200" in page.text
    assert "last evaluation's success33 %unfinished, step 120 of 200" in page.text
    assert "Not chosen yet: the run is unfinished." in page.text


def test_continued_run_shows_the_step_of_its_scores(tmp_path):
    run = write_run(tmp_path / "run", steps=400)
    assert read_runs([run])[0].state == "continued, step 200 of 400; scores of step 200"


def test_options_that_differ_from_the_preset_come_first(tmp_path):
    page = page_of(tmp_path, write_run(tmp_path / "run", steps=220, imports=("<b>",)))
    rows = page.tables["Options that differ from the preset debug"]
    assert rows[0] == ["option", "this run", "preset debug"]
    assert [row[:1] + row[2:] for row in rows[1:]] == [["imports", "none"], ["steps", "200"], ["seeds", "0"]]
    assert [row[1] for row in rows[1:]] == ["<b>", "220", "0 1 2"]
    assert "reward_warmup_updates: 20" in page.text


def test_settings_that_cannot_be_read_are_unknown(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("optim: {learning_rat: 1}\n")
    page = page_of(tmp_path, run)
    assert "Unknown: " in page.text
    assert "learning_rat" in page.text


def test_choice_of_what_acts_has_its_reason(tmp_path):
    page = page_of(tmp_path, write_run(tmp_path / "run"))
    heads, *rows = page.tables["Detected successes of each candidate"]
    assert heads[1:4] == ["the agent as trained", "its policy, without planning", "the pretrained policy (BC)"]
    assert rows[0] == ["seed 0", "90 %", "80 %", "70 %", "the agent as trained"]
    assert rows[1] == ["seed 1", "10 %", "60 %", "50 %", "its policy, without planning"]
    # The policy has more.
    assert rows[2][4] == "the pretrained policy (BC): the detector is not reliable for this seed"


def test_alarms_restarts_and_failures_are_events(tmp_path):
    run = write_run(tmp_path / "run")
    logger = JsonlLogger(run / "metrics.jsonl")
    for step, margin in ((600, -0.5), (620, 0.5), (640, -0.5)):
        logger.log(step, {"reward_margin": [0.5, margin, 0.5]}, "diagnostics")
    logger.log(610, {"divergence_restarts": [0, 0, 1], "critic_loss": [None, None, 5.0]}, "restart")
    logger.log(630, {"failed_episodes": [2, 0, 1]}, "train")
    logger.close()
    page = page_of(tmp_path, run)
    events = [[cell.strip() for cell in row] for row in page.tables["Events of the run"][1:]]
    assert [row[:2] for row in events] == [
        ["0", "pretraining"],
        ["0", "not finite"],
        ["200", "checkpoint"],
        ["600", "alarm"],
        ["610", "restart"],
        ["630", "simulator"],
        ["640", "alarm"],
    ]
    assert events[0][2] == "40 updates; its policy's success is 25 %"
    assert events[1][2] == "grad_norm (train), and in 10 later reports"
    assert events[3][2].startswith("seed 1, reward: the learned reward is not higher")
    assert events[4][2] == "seed 2 diverged and was restarted"
    assert events[6][2] == "seed 1, reward: active again"
    assert events[5][2] == "3 failed episodes, not stored"
    assert page.text.count("Alarms that are active at the last report") == 1


def test_figures_are_those_of_what_is_reported(tmp_path):
    page = page_of(tmp_path, write_run(tmp_path / "run"))
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]
    assert [label.split(".")[0] for label in labels] == [
        "Success",
        "Return",
        "Learned reward",
        "Losses",
        "Gradient norm",
        "Pretraining",
        "Alarms",
        "Reward margin",
        "Q share",
    ]
    # A mean over seeds that are known.
    assert labels[4] == "Gradient norm. mean: last mean 1.50."
    assert labels[8] == "Q share. Q share: last mean 20 %."
    assert "Not reported by this run: Termination loss, Imitation losses, Values," in page.text


def test_page_of_a_run_without_reports_is_complete(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    page = page_of(tmp_path, run)
    assert "Unfinished, step 0" in page.text
    assert "not reported" in page.text


def test_texts_of_files_are_escaped(tmp_path):
    for name, task, finished in (("a", HOSTILE, True), ("b", TEXT, False), ("c", "suite/x", True)):
        run = write_run(tmp_path / "runs" / name, finished=finished)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("task: suite/lift", f"task: {json.dumps(task)}"))
        (run / "demonstrations.json").write_text(json.dumps({"episodes": HOSTILE, "steps": 1, "sha256": HOSTILE}))
        if finished:
            content = json.loads((run / "result.json").read_text())
            provenance = {HOSTILE: HOSTILE, "notes": [HOSTILE]}
            content |= {
                "task": task,
                "algo": HOSTILE,
                "device": HOSTILE,
                "commit": HOSTILE,
                "versions": {HOSTILE: HOSTILE},
            }
            content |= {
                "demos_provenance": provenance,
                "acting": [HOSTILE],
                "seeds": [HOSTILE, 1, 2],
                "preset": HOSTILE,
            }
            content["selected_episodes"] = {"indices": HOSTILE, "of": HOSTILE}
            (run / "result.json").write_text(json.dumps(content))
        logger = JsonlLogger(run / "metrics.jsonl")
        logger.log(20, {HOSTILE: [1.0, 2.0, None]}, "diagnostics")
        logger.log(40, {"updates": HOSTILE}, "pretrain")
        logger.close()
    text = write_html(tmp_path / "page.html", find_runs([tmp_path / "runs"])).read_text(encoding="utf-8")
    page = check_page(text)
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert "\x1b" not in text
    # The text itself is shown.
    assert page.text.count(f"{TEXT}\\x1b[2J\\ud800") > 10


def test_page_refuses_scripts_and_addresses_by_its_policy(tmp_path):
    page = page_of(tmp_path, write_run(tmp_path / "run"))
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in "".join(page.addresses)


def test_folders_of_runs_are_searched(folder):
    (folder / "lift" / "cdred" / "checkpoints").mkdir()
    write_run(folder / ".hidden" / "run")
    (folder / "link").symlink_to(folder / "lift")
    names = ["lift/bc", "lift/cdred", "lift/gail", "walk/bc", "walk/cdred"]
    assert [str(path.relative_to(folder)) for path in find_runs([folder])] == names
    # Each run is there once, and methods are in the order of the algorithms.
    runs = read_runs(find_runs([folder, folder / "lift", folder / "lift" / "bc"]))
    assert [(run.task, run.method) for run in runs] == [
        ("suite/lift", "cdred"),
        ("suite/lift", "gail"),
        ("suite/lift", "bc"),
        ("suite/walk", "cdred"),
        ("suite/walk", "bc"),
    ]


def test_methods_of_equal_algorithms_are_told_apart_by_their_folders(tmp_path):
    write_run(tmp_path / "x" / "cdred")
    write_run(tmp_path / "x" / "centered")
    write_run(tmp_path / "y" / "centered")
    write_run(tmp_path / "y" / "cdred-long")
    methods = [run.method for run in read_runs(find_runs([tmp_path]))]
    assert methods == ["cdred", "cdred · x/centered", "cdred · y/centered", "cdred-long"]


def test_runs_that_differ_in_what_is_compared_are_named(tmp_path, folder):
    for name in ("cdred", "bc"):
        path = folder / "lift" / name / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 200 if name == "bc" else 1000}))
    (folder / "lift" / "bc" / "demonstrations.json").write_text('{"sha256": "0ther"}')
    page = page_of(tmp_path)
    expected = "These runs differ in steps 1,000 (cdred), 200 (bc); content of the demonstrations."
    assert page.text.count("These runs differ in") == page.text.count(expected) == 1


@pytest.fixture
def with_videos(tmp_path: Path, monkeypatch) -> Path:
    run = write_run(tmp_path / "some run#1")
    (run / "videos").mkdir()
    (run / "videos" / "a.mp4").write_bytes(b"m" * 600)
    (run / "videos" / "b.gif").write_bytes(b"g" * 600)
    (run / "videos" / "note.txt").write_text("no video")
    (tmp_path / "secret.mp4").write_bytes(b"s" * 10)
    (run / "videos" / "c.mp4").symlink_to(tmp_path / "secret.mp4")
    monkeypatch.setattr(videos.Videos.__init__, "__defaults__", (1000,))
    return run


def test_videos_are_embedded_up_to_a_size_and_linked_beyond(tmp_path, with_videos):
    page = check_page(write_html(tmp_path / "pages" / "page.html", [with_videos]).read_text())
    (video,) = [attributes["src"] for tag, attributes in page.elements if tag == "video"]
    assert video is not None
    assert video.startswith("data:video/mp4;base64,bW1t")
    assert page.count("img") == 0
    assert "b.gif (0.0 MiB) is not in this page, which embeds at most 16.0 MiB of videos" in page.text
    links = [address for address in page.addresses if address.startswith("./")]
    assert links == ["./../some%20run%231/videos/a.mp4", "./../some%20run%231/videos/b.gif"]


def test_page_of_twenty_long_runs_is_below_ten_megabytes(tmp_path):
    """By the size of a page of two: sizes add up."""
    rng, folders = np.random.default_rng(0), []
    keys = ("critic_loss", "consistency_loss", "reward_loss", "grad_norm", "grad_norm_max")
    keys += ("td_target", "q_pi", "v_expert", "td_target_abs_max", "policy_entropy")
    for index in range(2):
        folders.append(write_run(tmp_path / str(index), task=f"suite/task-{index}"))
        with (folders[-1] / "metrics.jsonl").open("a") as file:
            for step in range(201, 1201):
                values = rng.normal(size=(len(keys), 3)).round(6).tolist()
                line = {"step": step, "kind": "train", **dict(zip(keys, values, strict=True))}
                file.write(json.dumps(line) + "\n")
    assert write_html(tmp_path / "page.html", folders).stat().st_size < 2 / 20 * 10e6


def test_command_writes_the_page_and_no_images(tmp_path, bc_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in bc_run.rglob("*")}
    page = tmp_path / "new" / "page.html"
    assert main(["report", str(bc_run), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert f"report: {page}" in out
    assert "| probe/point |" in out
    assert {path: path.stat().st_mtime_ns for path in bc_run.rglob("*")} == before
    content = check_page(page.read_text())
    assert "probe/point · bc" in content.text
    result = json.loads((bc_run / "run" / "result.json").read_text())
    assert f"commit{result['commit'] or 'unknown'}" in content.text
    assert result["demos_provenance"]
    assert all(key in content.text for key in result["demos_provenance"])
    for value in dict.fromkeys(result["versions"].items()):
        assert " ".join(value) in content.text


def test_command_refuses_a_folder_without_runs_and_a_page_that_is_a_folder(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 2
    assert "has no metrics.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert main(["report", str(write_run(tmp_path / "run")), "--html", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_damaged_result_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result.json is not JSON"):
        write_html(tmp_path / "page.html", [run])


def test_full_configuration_is_that_of_the_file(tmp_path):
    run = write_run(tmp_path / "run")
    config = read_runs([run])[0].config
    assert config is not None
    assert to_yaml(config) in page_of(tmp_path, run).text
