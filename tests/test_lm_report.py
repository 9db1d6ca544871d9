"""The report of runs: what it says is what the run's files say, and a browser shows it."""

import csv
import html.parser
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("tyro")

import lm_run

from windgames.continuum import largest_win_rate
from windlm.cli import main
from windlm.report import read_run, write
from windlm.report.curves import band
from windlm.report.page import page
from windlm.report.runs import spaced

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '</script><script>document.title="owned"</script> <!-- \u2028 \x00 \ud800 "quotes" & 🙂'

SAFE = NASTY.replace("\ud800", "?")  # half a character is no text


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs with win rates and responses."""
    folder = tmp_path_factory.mktemp("runs")
    for name, objective in {"wind": "wind", "sppo": "sppo"}.items():
        lm_run.main(folder / name, objective, rounds=3, epochs=1)
    return folder


def data_of(path):
    """The JSON in a page, as a browser reads it: the text of the script element."""

    class Reader(html.parser.HTMLParser):
        inside, text, loads = False, "", []

        def handle_starttag(self, tag, attributes):
            given = dict(attributes)
            self.inside = given.get("id") == "data"
            self.loads += [given[a] for a in ("src", "href") if a in given]

        def handle_data(self, data):
            if self.inside:
                self.text += data

        def handle_endtag(self, tag):
            self.inside = False

    reader = Reader()
    reader.loads = []
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.loads == []  # nothing from anywhere
    return json.loads(reader.text)


# -- what it says --------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_report(runs):
    data = data_of(runs / "wind" / "report.html")
    (run,) = data["runs"]
    rows = [json.loads(line) for line in (runs / "wind" / "metrics.jsonl").read_text().splitlines()][1:]
    assert run["status"] == "Finished after 3 of 3 rounds."
    for found, row in zip(run["metrics"], rows, strict=True):
        assert {k: found[k] for k in row} == row
        assert found["seconds"] == pytest.approx(sum(v for k, v in row.items() if k.startswith("seconds_")))
        assert found["tokens_per_second"] == pytest.approx(row["tokens"] / found["seconds"])
    assert run["metrics"][-1]["seen_tokens"] == sum(r["tokens"] for r in rows)
    curves = [c["name"] for c in data["curves"]]
    assert curves[:4] == ["reward", "win_rate_reference", "win_rate_previous", "kl"]
    assert not any(re.search("_error|seconds_|round|tokens$", name) for name in curves)
    xs, ys = np.array(data["frontier"]).T
    assert ys == pytest.approx([float(largest_win_rate(x)) for x in xs], abs=1e-5)
    assert xs[-1] > max(r["kl"] for r in rows)


def test_responses_are_those_of_the_run_best_first(runs):
    kept = runs / "wind" / "completions" / "round-000002.jsonl"
    wanted = [json.loads(line) for line in kept.read_text().splitlines()]
    (found,) = (r for r in read_run(runs / "wind")["rollouts"] if r["round"] == 2)
    for prompt, row in zip(found["prompts"], wanted, strict=True):
        for who in ("responses", "reference"):
            assert sorted(r["text"] for r in prompt[who]) == sorted(r["text"] for r in row[who])
            rewards = [r["reward"] for r in prompt[who]]
            assert rewards == sorted(rewards, reverse=True)
            assert rewards == pytest.approx(
                lm_run.vowels([row["prompt"]] * len(rewards), [r["text"] for r in prompt[who]])
            )
        ratios = {r["text"]: r["current"] - r["ref"] for r in row["responses"]}
        assert all(r["log_ratio"] == pytest.approx(ratios[r["text"]], abs=1e-4) for r in prompt["responses"])


def test_the_trained_policy_and_held_out_prompts_have_their_place(tmp_path):
    rows = [{"round": i, "kl": 0.1 * i, "win_rate_reference": 0.5, "loss": 1.0} for i in (1, 2)]
    held_out = {"eval_kl": 0.9, "eval_win_rate": 0.6, "eval_win_rate_low": 0.5, "eval_win_rate_high": 0.75}
    rows[1] |= held_out
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, (run,) = write([tmp_path])
    assert run["status"] == "2 rounds so far."
    data = data_of(out)
    assert data["pair"] == ["eval_kl", "eval_win_rate"]
    assert data["frontier"][-1][0] > 0.9
    assert {c["name"] for c in data["curves"]} == {"kl", "win_rate_reference", "loss", "eval_kl", "eval_win_rate"}
    assert band(rows[1], "eval_win_rate") == (0.5, 0.75)
    assert band(rows[0], "eval_win_rate") is None
    assert band({"kl": 1.0, "kl_error": 0.5}, "kl") == pytest.approx((1 - 0.98, 1 + 0.98))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"round": 3, "final": True, "kl": 0.3}) + "\n")
    assert read_run(tmp_path)["status"] == "Finished after 2 rounds."
    (tmp_path / "rollouts" / "round-000003").mkdir(parents=True)  # it goes on to more rounds
    (tmp_path / "rollouts" / "round-000003" / "identity.json").write_text('{"rounds": 5}')
    assert read_run(tmp_path)["status"] == "2 of 5 rounds so far; it is in round 3, or was stopped there."


def test_without_completions_the_rollouts_are_shown(runs, tmp_path):
    whole = read_run(runs / "wind")["rollouts"]
    shutil.copytree(runs / "wind", tmp_path / "run", ignore=shutil.ignore_patterns("completions"))
    bare = read_run(tmp_path / "run")["rollouts"]
    assert [r["round"] for r in bare] == [r["round"] for r in whole]
    for one, other in zip(bare[-1]["prompts"], whole[-1]["prompts"], strict=True):
        assert sorted(r["text"] for r in one["responses"]) == sorted(r["text"] for r in other["responses"])
        assert "reference" not in one
        labels = [r["label"] for r in one["responses"]]
        assert labels == sorted(labels, reverse=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / "metrics.jsonl").write_text(""),
        lambda run: (run / "metrics.jsonl").write_text('{"round": 0, "remark": "outside"}\n'),
        lambda run: (run / "metrics.jsonl").write_text('{"round": 0}\n{"round": 1, "kl": NaN, "reward": null}\n'),
        lambda run: (run / "metrics.jsonl").write_text('{"round": 0}\n{"round": 1, "kl": 0.1}\n{"round": 2, "k'),
        lambda run: (run / "metrics.jsonl").write_text('{"round": 1, "reward": 1e400, "odd": [1], "words": "x"}\n'),
        lambda run: (run / "metrics.jsonl").unlink(),
        lambda run: shutil.rmtree(run / "rollouts"),
        lambda run: [p.write_bytes(p.read_bytes()[:100]) for p in run.glob("rollouts/*/*/*.arrow")],
        lambda run: [p.write_text(p.read_text()[:-30]) for p in run.glob("completions/*")],
        lambda run: (run / "config.json").write_text("{"),
        lambda run: shutil.rmtree(run / "model"),
    ],
)
def test_running_killed_and_damaged_runs_have_reports(change, runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "wind", run)
    change(run)
    out, _ = write([run])
    data = data_of(out)
    assert len(data["runs"]) == 1
    if not (run / "model").exists():
        assert data["runs"][0]["status"] == "3 of 3 rounds so far."


def test_a_run_in_its_first_round(runs, tmp_path):
    shutil.copytree(runs / "wind" / "rollouts" / "round-000001", tmp_path / "run" / "rollouts" / "round-000001")
    out, (run,) = write([tmp_path / "run"])
    assert run["status"] == "0 of 3 rounds so far; it is in round 1, or was stopped there."
    assert [len(r["prompts"]) for r in run["rollouts"]] == [4]
    assert data_of(out)["curves"] == []


def test_texts_of_any_kind_stay_texts(runs, tmp_path):
    run = tmp_path / "run"
    (run / "completions").mkdir(parents=True)
    prompt = [{"role": "user", "content": NASTY}]
    row = {"prompt_index": 0, "prompt": prompt, "responses": [{"text": NASTY, "tokens": 3, "reward": math.nan}]}
    (run / "completions" / "round-000001.jsonl").write_text(json.dumps(row) + "\n")
    out, _ = write([run])
    (shown,) = data_of(out)["runs"][0]["rollouts"][0]["prompts"]
    assert shown["prompt"] == f"user: {SAFE}"
    assert shown["responses"][0]["text"] == SAFE
    assert shown["responses"][0]["reward"] is None


def test_only_as_much_as_asked_for(runs):
    run = read_run(runs / "wind", prompts=2, rounds=2)
    assert [(r["round"], r["of"], len(r["prompts"])) for r in run["rollouts"]] == [(1, 4, 2), (3, 4, 2)]
    assert spaced(range(100), 4) == [0, 33, 66, 99]
    assert spaced(range(3), 5) == [0, 1, 2]
    assert spaced(range(3), 1) == [2]
    assert spaced(range(3), 0) == []


# -- the command ---------------------------------------------------------------------------------------------


def test_several_runs_in_one_page_with_table_and_picture(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    shutil.copytree(runs / "wind", tmp_path / "wind")  # of the same name
    words = ["report", runs / "wind", runs / "sppo", tmp_path / "wind", "--out", tmp_path / "r.html", "--csv", "--png"]
    main([str(w) for w in words])
    assert capsys.readouterr().out.count("r.") == 3
    names = [run["name"] for run in data_of(tmp_path / "r.html")["runs"]]
    assert names == [str(runs / "wind"), "sppo", str(tmp_path / "wind")]
    with (tmp_path / "r.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["run"], row["round"]) for row in table] == [(n, str(i)) for n in names for i in (1, 2, 3)]
    rows = [json.loads(line) for line in (runs / "sppo" / "metrics.jsonl").read_text().splitlines()][1:]
    assert [float(row["kl"]) for row in table[3:6]] == [row["kl"] for row in rows]
    from PIL import Image

    with Image.open(tmp_path / "r.png") as picture:
        assert min(picture.size) > 500
        assert len(set(picture.convert("L").resize((200, 200)).tobytes())) > 20


@pytest.mark.parametrize("metrics", ["", '{"round": 0}\n{"round": 1, "kl": 0.1}\n'])
def test_a_picture_of_little(metrics, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text(metrics)
    if metrics:
        main(["report", str(tmp_path), "--png"])
        assert (tmp_path / "report.png").stat().st_size > 5000
    else:
        with pytest.raises(SystemExit, match="no round has ended yet"):
            main(["report", str(tmp_path), "--png"])


def test_what_is_no_run_is_said(runs, tmp_path):
    for folder, said in {
        runs / "wind" / "model": f"did you mean {runs / 'wind'}",
        runs: f"it holds the runs sppo, wind: give {runs / '*'}",
        tmp_path: "give the folder of --train.out",
        tmp_path / "nowhere": "There is no folder",
    }.items():
        with pytest.raises(SystemExit, match=re.escape(said)):
            main(["report", str(folder)])
    with pytest.raises(SystemExit, match="no run to report"):
        main(["report"])


def test_the_report_is_light():
    script = (
        "import sys, windlm.report; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- in a browser --------------------------------------------------------------------------------------------


def opened(path, view="", folder=None):
    """Return the page's HTML once its program has run."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    words += ["--virtual-time-budget=2000", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]
    words += ["--enable-logging=stderr", f"file://{path}{view}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    errors = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not errors, errors
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_a_browser_shows_it(runs, tmp_path):
    out, (_, sppo) = write([runs / "wind", runs / "sppo"], tmp_path / "r.html")
    shown = opened(out, "#run=1&round=2&sort=worst&theme=dark&axis=seen_tokens", tmp_path / "profile")
    assert "<title>windlm report: wind, sppo</title>" in shown
    assert 'data-theme="dark"' in shown
    charts = re.findall(r'<figure data-chart="([^"]*)">(.*?)</figure>', shown, re.DOTALL)
    assert len(charts) == 1 + len(data_of(out)["curves"])
    for title, body in charts:
        assert re.findall(r'data-run="([^"]*)"', body) == ["wind", "sppo"], title
        assert "NaN" not in body
    assert shown.count('class="bound"') == 1
    (round_2,) = (r for r in sppo["rollouts"] if r["round"] == 2)
    worst = round_2["prompts"][0]["responses"][-1]
    texts = re.findall(r'<div class="(?:text|empty)">([^<]*)</div>', shown)
    assert texts[0] == (worst["text"] or "(empty)")
    assert len(texts) == sum(len(round_2["prompts"][0][who]) for who in ("responses", "reference"))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_a_browser_shows_texts_as_texts_and_a_run_without_anything(tmp_path):
    prompt = {"index": 0, "prompt": NASTY, "responses": [{"text": NASTY, "tokens": 1}]}
    bare = {"name": NASTY, "folder": "f", "status": "s", "remark": None, "settings": {}, "before": {}, "metrics": []}
    full = bare | {"name": "b", "rollouts": [{"round": 1, "of": 1, "prompts": [prompt]}]}
    (tmp_path / "r.html").write_text(page([bare | {"rollouts": []}, full]))
    shown = opened(tmp_path / "r.html", "", tmp_path / "profile")
    assert "<title>owned</title>" not in shown
    assert "No round has ended yet." in shown
    assert "&lt;/script&gt;" in re.search(r'<div class="text">(.*?)</div>', shown, re.DOTALL)[1]
