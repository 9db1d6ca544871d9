"""Watching a run: callbacks, stopping early, responses to read, progress, intervals in the metrics."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import lm_run

from windlm.train import Config
from windlm.train.metrics import standard_error, with_square
from windlm.train.watch import StopWhen, check_callbacks, responses_table

PROMPTS = ["a", "b c", "c", "d d d"]


def run(out, **settings):
    return lm_run.main(out, rounds=settings.pop("rounds", 3), epochs=1, **settings)


def completions(out):
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((out / "completions").glob("*.jsonl"))
    }


def said(rows):
    return [[p["prompt"], [[r["text"], r["reward"]] for r in p["responses"] + p["reference"]]] for p in rows]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, *run(out)


# -- responses to read ---------------------------------------------------------------------------------------


def test_completions_are_the_rollouts_and_their_rewards(done):
    out, _policy, rows = done
    kept = completions(out)
    assert list(kept) == [f"round-{i:06d}" for i in (1, 2, 3)]
    for name, row in zip(kept, rows[1:], strict=True):
        assert [r["prompt"] for r in kept[name]] == PROMPTS
        rewards = [[r["reward"] for r in p["responses"]] for p in kept[name]]
        for prompt in kept[name]:
            for who, count in (("responses", 8), ("reference", 4)):
                texts = [r["text"] for r in prompt[who]]
                assert len(texts) == count
                expected = lm_run.vowels([prompt["prompt"]] * count, texts)
                assert [r["reward"] for r in prompt[who]] == expected
        # the metrics of the round are those of these samples, and so is the interval over prompts
        means = [statistics.fmean(r) for r in rewards]
        assert row["reward"] == pytest.approx(statistics.fmean(means))
        assert row["reward_error"] == pytest.approx(statistics.stdev(means) / math.sqrt(len(means)), abs=1e-9)
        ratio = [r["current"] - r["ref"] for p in kept[name] for r in p["responses"]]
        assert row["kl"] == pytest.approx(statistics.fmean(ratio), abs=1e-6)
    # the reference's responses are the same in every round
    first, *others = ([p["reference"] for p in rows] for rows in kept.values())
    assert all(other == first for other in others)


@pytest.mark.parametrize("settings", [{"shard_prompts": 1}, {"completions": 2}, {"completions": 0}])
def test_as_many_prompts_as_asked_for_whatever_the_shards(settings, done, tmp_path):
    run(tmp_path, rounds=1, **settings)
    asked = settings.get("completions", 4)
    found, whole = completions(tmp_path), completions(done[0])["round-000001"]
    assert said(found.get("round-000001", [])) == said(whole[:asked])
    assert bool(found) == bool(asked)


@pytest.mark.parametrize("objective", ["extragradient", "sppo", "jbond"])
def test_every_method_shows_its_responses(objective, tmp_path):
    run(tmp_path, rounds=1, objective=objective)
    ((_name, rows),) = completions(tmp_path).items()
    assert all(len(p["responses"]) == 8 and p["reference"] for p in rows)


def test_the_table_has_best_worst_and_reference():
    rows = [
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "say\nit"}],
            "responses": [{"text": "low", "reward": -1.0}, {"text": "high\n" * 90, "reward": 2.0}],
            "reference": [{"text": "", "reward": 0.5}],
        }
    ] * 9
    told = responses_table(4, rows, prompts=2, width=60)
    lines = told.splitlines()
    assert lines[0] == "Round 4"
    assert lines[1] == "> say it"
    assert len(lines) == 1 + 2 * 4
    assert [line.split()[:2] for line in lines[2:5]] == [["best", "2"], ["worst", "-1"], ["reference", "0.5"]]
    assert "(empty)" in lines[4]
    assert all(len(line) <= 60 for line in lines)
    judged_in_pairs = [{"prompt": "p", "responses": [{"text": "x", "label": 0.1}, {"text": "y", "label": 0.9}]}]
    assert responses_table(1, judged_in_pairs).splitlines()[2].split() == ["best", "0.9", "y"]


def test_the_error_of_a_mean_over_prompts():
    x = np.random.default_rng(0).normal(size=12)
    whole = with_square("x", x)
    assert standard_error(whole["x"], whole["x_square"], 12) == pytest.approx(x.std(ddof=1) / math.sqrt(12))
    parts = [with_square("x", part) for part in np.split(x, 3)]
    for name in whole:
        assert np.mean([p[name] for p in parts]) == pytest.approx(whole[name])
    assert standard_error(0.3, 0.09, 1) == 0


# -- callbacks and stopping ----------------------------------------------------------------------------------


class Recorder:
    def __init__(self, stop=None):
        self.stop, self.rounds, self.resumed = stop, [], []

    def on_round(self, row, policy):
        self.rounds.append(row["round"])
        return row["round"] == self.stop

    def on_resume(self, rows, policy):
        self.resumed.append(len(rows) - 1)
        return rows[-1]["round"] == self.stop


@pytest.mark.parametrize("callback", [type("Mine", (), {"on_rounds": lambda self, row, policy: None})(), print])
def test_a_callback_without_a_method_of_one_is_refused(callback):
    with pytest.raises(ValueError, match="on_round or on_resume"):
        check_callbacks([callback])


def test_callbacks_see_every_round_and_may_end_the_run(done, tmp_path):
    class Silent:
        def on_resume(self, rows, policy):
            pass

    seen = Recorder(stop=2)
    settings = {"rounds": 3, "checkpoint_every": 2}
    _, rows = run(tmp_path, callbacks=[Silent(), seen], **settings)
    assert seen.rounds == [1, 2]
    assert [r["round"] for r in rows] == [0, 1, 2]
    assert [r["reward"] for r in rows[1:]] == [r["reward"] for r in done[2][1:3]]
    # the same command again adds nothing; without the callback the run goes on to the same end
    again = Recorder(stop=2)
    _, rows = run(tmp_path, callbacks=[again], **settings)
    assert (again.rounds, again.resumed, len(rows)) == ([], [2], 3)
    policy, rows = run(tmp_path, **settings)
    assert [r["reward"] for r in rows[1:]] == [r["reward"] for r in done[2][1:]]
    for a, b in zip(policy.model.parameters(), done[1].model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_condition_on_a_metric_ends_the_run(done, tmp_path):
    rewards = [r["reward"] for r in done[2][1:]]
    threshold = sorted(rewards)[1]
    expected = next(i for i, r in enumerate(rewards, 1) if r >= threshold)
    _, rows = run(tmp_path, stop_when=f"reward >= {threshold!r}", checkpoint_every=0)
    assert rows[-1]["round"] == expected
    assert (tmp_path / "model").exists()


@pytest.mark.parametrize("setting", [{"stop_when": "nothing > 1"}, {"keep_best": "nothing"}])
def test_a_metric_that_is_not_there_costs_no_round(done, tmp_path, setting):
    with pytest.raises(ValueError, match="no metric 'nothing'"):
        run(tmp_path, checkpoint_every=2, **setting)
    kept = (tmp_path / "metrics.jsonl").read_text()
    policy, rows = run(tmp_path, checkpoint_every=2)
    assert (tmp_path / "metrics.jsonl").read_text().startswith(kept)  # seconds included: no round was done twice
    assert [r["reward"] for r in rows[1:]] == [r["reward"] for r in done[2][1:]]
    for a, b in zip(policy.model.parameters(), done[1].model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("condition", "value", "ends"),
    [("kl > 5", 5.0, False), ("kl >= 5", 5.0, True), ("kl<1e-3", 0.0, True), ("kl <= -1", 0, False)],
)
def test_conditions(condition, value, ends):
    assert StopWhen(condition).on_round({"round": 1, "kl": value}, None) is ends


@pytest.mark.parametrize("condition", ["", "kl", "kl = 3", "kl > x", "kl > nan", "> 3", "kl > 3 or 4"])
def test_a_condition_that_cannot_be_read_is_refused(condition):
    with pytest.raises(ValueError, match="stop_when must be a metric"):
        StopWhen(condition)


def test_the_folder_of_a_run_may_be_a_text():
    assert Config(out="run").out == Path("run")


def test_a_metric_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no metric 'win_rate_reference' \(win rates need reference_draws\); it has"):
        StopWhen("win_rate_reference > 0.9").on_round({"round": 1, "kl": 0.0}, None)


# -- progress ------------------------------------------------------------------------------------------------


def test_a_log_gets_a_line_a_round_and_quiet_is_quiet(tmp_path, capsys):
    run(tmp_path / "quiet", rounds=2, show_every=1, checkpoint_every=0)
    told = capsys.readouterr().err
    assert "round" not in told.lower()
    assert "\n> " not in told
    run(tmp_path / "log", rounds=2, show_every=2, checkpoint_every=0, progress=True)
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("round ")]
    assert [line.split(":")[0] for line in lines] == ["round 1/2", "round 2/2"]
    assert all("tokens/s" in line and "KL" in line and "win rate" in line for line in lines)
    assert told.count("Round 2\n> a\n") == 1
    assert "Round 1\n" not in told
    assert "rounds:" not in told  # no bar
