"""Win rates, diversity, chat judges, benchmarks and the reader's columns."""

import gc
import json
import math
import re
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny
import servers

from windlm import PairwiseJudge, RewardJudge
from windlm.cli import main
from windlm.evaluate import command
from windlm.evaluate.chat import ChatJudge, Endpoint, LocalChat, Question, converse, load_questions
from windlm.evaluate.statistics import bleu, distinct, diversity, interval, self_bleu, win_rates
from windlm.models import ModelSettings, load_policy

REWARD = f"{Path(lm_tiny.__file__)}:vowels"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    lm_tiny.make(folder / "policy")
    lm_tiny.make(folder / "other", seed=3)
    lm_tiny.write_lines(folder / "prompts.jsonl", [{"prompt": f"say {c}"} for c in "abcd"])
    questions = [{"question_id": i, "category": "c", "turns": ["hi", "and?"][: 2 - i % 2]} for i in range(3)]
    lm_tiny.write_lines(folder / "questions.jsonl", questions)
    return folder


# -- win rates -----------------------------------------------------------------------------------------------


def test_the_win_rate_is_the_share_of_games_won(folder):
    one, other = (load_policy(ModelSettings(str(folder / name), max_new_tokens=6)) for name in ("policy", "other"))
    prompts = ["say a", "say b"]
    ours, theirs = one.sample(prompts, 3, np.random.default_rng(0)), other.sample(prompts, 5, np.random.default_rng(1))
    found = win_rates(prompts, ours, theirs, RewardJudge(lm_tiny.vowels))
    for p, prompt in enumerate(prompts):
        a, b = (np.array(lm_tiny.vowels(prompt, s.text[p])) for s in (ours, theirs))
        games = (a[:, None] > b).astype(float) + 0.5 * (a[:, None] == b)
        assert found[p] == pytest.approx(games.mean())
    back = win_rates(prompts, theirs, ours, PairwiseJudge(lm_tiny.longer))
    assert win_rates(prompts, ours, theirs, PairwiseJudge(lm_tiny.longer)) == pytest.approx(1 - back)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0.5 <= high for _, low, high in (interval(rng.random(60)) for _ in range(100))]
    assert 88 <= sum(hits) <= 100
    assert interval([0.3, 0.3]) == (0.3, 0.3, 0.3)
    with pytest.raises(ValueError, match="no prompt"):
        interval([])


# -- diversity -----------------------------------------------------------------------------------------------


def test_diversity_of_texts_that_are_known():
    assert distinct([["a", "b"], ["a", "c"]], 1) == 3 / 4
    assert distinct([["a", "b"], ["a", "b"]], 2) == 1 / 2
    assert self_bleu([["a", "b", "c", "d"]] * 3) == pytest.approx(1)
    assert self_bleu([["a", "b"], ["c", "d"]]) == 0
    # by hand: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no quadruple (half a match of 1), equal lengths
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert bleu(["a", "b", "c", "d"], [["a", "b", "c", "x"]]) == pytest.approx(expected)
    # clipped counts, and the brevity penalty of two words against three
    assert bleu(["a", "a"], [["a", "b", "c"]]) == pytest.approx(math.exp(1 - 3 / 2) * (1 / 2 * 1 / 2) ** (1 / 2))
    said = diversity([["a b", "a c"], ["", ""]], np.array([[-1.0, -2.0], [-3.0, -2.0]]))
    assert said["entropy"] == 2
    assert said["distinct_1"] == 3 / 4  # nothing said is no share


# -- chat judges ---------------------------------------------------------------------------------------------


def script(answers):
    """A chat that gives these answers, one for each conversation it is asked about."""
    left = iter(answers)
    return lambda talks: [next(left) for _ in talks]


def test_an_answer_that_cannot_be_read_is_asked_for_again_and_never_scored():
    questions = [Question("0", "", ("hi",)), Question("1", "", ("ho",))]
    talks = converse(questions, lambda talks: ["yes"] * len(talks))
    judge = ChatJudge(script(["[[7]]", "fine", "seven", "[[8.5]]"]), tries=3)
    assert judge.grade(questions, talks).ravel().tolist() == [7, 8.5]
    assert (judge.calls, judge.unparsed) == (4, [])
    judge = ChatJudge(script(["[[11]]", "[[0]]", "[[3]]", "well"]), tries=2)
    found = judge.grade(questions, talks).ravel()
    assert found[0] == 3
    assert np.isnan(found[1])
    assert judge.unparsed == ["well"]


def test_both_orders_are_asked_and_a_judge_of_positions_is_found_out():
    questions = [Question(str(i), "", ("hi",)) for i in range(2)]
    good, bad = (converse(questions, lambda talks, word=word: [word] * len(talks)) for word in ("good", "bad"))
    fair = ChatJudge(
        lambda talks: ["[[A]]" if t[0]["content"].count("A]\nuser: hi\nassistant: good") else "[[B]]" for t in talks]
    )
    wins, bias = fair.compare(questions, good, bad)
    assert wins.tolist() == [[1], [1]]
    assert bias.tolist() == [[0], [0]]
    first = ChatJudge(lambda talks: ["[[A]]"] * len(talks))
    wins, bias = first.compare(questions, good, bad)
    assert wins.tolist() == [[0.5], [0.5]]
    assert bias.tolist() == [[1], [1]]
    both = ChatJudge(lambda talks: ["[[A]] or [[B]]"] * len(talks), tries=1)
    assert np.isnan(both.compare(questions, good, bad)[0]).all()
    assert len(both.unparsed) == 4


def test_questions_and_their_references(folder, tmp_path):
    answers = [{"question_id": 1, "choices": [{"turns": ["right"]}]}]
    questions = load_questions(str(folder / "questions.jsonl"), lm_tiny.write_lines(tmp_path / "a.jsonl", answers))
    assert [len(q.turns) for q in questions] == [2, 1, 2]
    assert [q.references for q in questions] == [(), ("right",), ()]
    seen = []
    judge = ChatJudge(lambda talks: seen.extend(t[0]["content"] for t in talks) or ["[[5]]"] * len(talks))
    table = judge.grade(questions, converse(questions, lambda talks: ["x"] * len(talks)))
    assert np.isnan(table).tolist() == [[False, False], [False, True], [False, False]]  # a turn that there is not
    assert [("right" in text) for text in seen] == [False, False, True, False, False]
    with pytest.raises(ValueError, match="'turns'; it has prompt"):
        load_questions(str(folder / "prompts.jsonl"))
    with pytest.raises(ValueError, match="no installed package 'nowhere'"):
        load_questions("nowhere:a.jsonl")
    with pytest.raises(ValueError, match="no file"):
        load_questions("json:a.jsonl")  # a package, but no such file in it


@pytest.fixture
def server():
    """A server that speaks the protocol: grades by the number of letters, refuses the model "none"."""
    pytest.importorskip("openai")
    seen = []

    class Handler(servers.StandIn):
        def do_POST(self):
            body = self.body()
            seen.append((self.path, self.headers.get("Authorization"), body))
            text = body["messages"][0]["content"]
            said = "[[C]]" if "[Assistant A]" in text else f"[[{1 + len(text) % 10}]]"
            answer = {"choices": [{"message": {"role": "assistant", "content": said}}]}
            if body["model"] == "odd":
                answer = {"choices": []}
            self.reply(answer, 404 if body["model"] == "none" else 200)

    with servers.serving(Handler) as running:
        yield servers.url(running), seen


def test_an_endpoint_speaks_the_protocol(server, monkeypatch):
    url, seen = server
    talk = [{"role": "user", "content": "hi"}]
    monkeypatch.setenv("SOME_KEY", "abc")
    assert Endpoint(url + "/", "m", "SOME_KEY")([talk]) == ["[[3]]"]
    path, key, body = seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer abc")
    assert body == {"model": "m", "messages": talk, "temperature": 0.0, "max_tokens": 1024}
    for model, said in {"none": "answered 404", "odd": "did not return a chat completion"}.items():
        with pytest.raises(ValueError, match=said):
            Endpoint(url, model)([talk])
    with pytest.raises(ValueError, match="cannot be reached"):
        Endpoint("http://127.0.0.1:1/v1", "m", retries=0)([talk])


def test_a_local_model_can_be_the_judge(folder):
    chat = LocalChat(load_policy(ModelSettings(str(folder / "policy"), max_new_tokens=4)))
    questions = load_questions(str(folder / "questions.jsonl"))
    judge = ChatJudge(chat, tries=1)
    assert np.isnan(judge.grade(questions, converse(questions, chat))).all()  # a random model grades nothing
    assert len(judge.unparsed) == 5


# -- the command line ----------------------------------------------------------------------------------------


def test_evaluate_prints_one_table_and_writes_it(folder, tmp_path, capsys, server):
    words = [
        "evaluate",
        "--model.name",
        folder / "policy",
        "--model.max-new-tokens",
        6,
        "--reference",
        folder / "other",
    ]
    words += ["--data.source", folder / "prompts.jsonl", "--judge.kind", "reward", "--judge.name", REWARD]
    words += ["--questions", folder / "questions.jsonl", "--grader.model", "m", "--grader.url", server[0]]
    words += ["--out", tmp_path / "e.json"]  # no --tasks: prompts and questions are all that is asked for
    main([str(w) for w in words])
    told = capsys.readouterr().out
    saved = json.loads((tmp_path / "e.json").read_text())
    rows = {(r["measure"], r["of"]): r for r in saved["rows"]}
    assert saved["config"]["draws"] == 4
    won = rows["win rate against the reference", "model"]
    assert won["low"] <= won["mean"] <= won["high"]
    assert f"{won['mean']:.3f}" in told
    assert won["n"] == 4
    assert rows["KL to the reference, nats", "model"]["mean"] > 0
    assert rows["grade, turn 2", "reference"]["n"] == 2
    assert rows["win rate, turn 1", "model"]["mean"] == 0.5
    assert rows["unparsed replies", "judge"]["mean"] == 0
    assert rows["distinct-1", "model"]["low"] is None
    assert rows["length, tokens", "model"]["low"] <= 6
    assert "difference" in rows["reward", "model"]
    assert "difference" not in rows["reward", "reference"]
    assert "values" not in rows["reward", "model"]
    assert "difference from the reference" in told
    # a model against itself: no divergence
    main([str(w) for w in [*words[:6], folder / "policy", "--data.source", folder / "prompts.jsonl", *words[-2:]]])
    rows = {r["measure"]: r for r in json.loads((tmp_path / "e.json").read_text())["rows"]}
    assert rows["KL to the reference, nats"]["mean"] == pytest.approx(0, abs=1e-5)


def test_questions_are_answered_by_one_model_at_a_time(folder, tmp_path, monkeypatch):
    """Several large models do not fit into a card's memory together."""
    made, most = [], []

    def load(*args):
        gc.collect()
        most.append(sum(one() is not None for one in made))
        policy = original(*args)
        made.append(weakref.ref(policy))
        return policy

    original = command.load
    monkeypatch.setattr(command, "load", load)
    monkeypatch.setattr(command, "chat_model", lambda grader: lambda talks: ["[[7]]"] * len(talks))
    model = command.EvaluatedModel(str(folder / "policy"), max_new_tokens=3)
    config = command.EvaluateConfig(
        model,
        reference=str(folder / "other"),
        others=(str(folder / "policy"),),
        questions=str(folder / "questions.jsonl"),
        grader=command.ChatJudgeSettings("any"),
        out=tmp_path / "e.json",
    )
    rows = command.evaluate(config)
    assert {row["of"] for row in rows if row["measure"] == "grade, turn 1"} == {"model", "reference", "policy"}
    assert most == [0, 0, 0]


def test_benchmarks_run_from_local_task_files(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    items = [{"question": f"{i} and {i} is", "choices": ["even", "odd"], "answer": i % 2} for i in range(6)]
    source = lm_tiny.write_lines(tmp_path / "items.jsonl", items)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "choices.yaml").write_text(
        f"""
task: local_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {source}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    )
    words = ["evaluate", "--model.name", folder / "policy", "--tasks", "local_choices", "--limit", 4]
    words += ["--task-folder", tmp_path / "tasks", "--out", tmp_path / "e.json"]
    main([str(w) for w in words])
    assert "local_choices: acc" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert 0 <= row["mean"] <= 1
    assert row["n"] == 4


def test_sample_puts_two_policies_side_by_side(folder, capsys):
    words = ["sample", "--model.name", folder / "policy", "--reference", folder / "other", "--model.max-new-tokens", 30]
    words += ["--data.source", folder / "prompts.jsonl", "--data.limit", 2, "--draws", 2, "--width", 20]
    main([str(w) for w in words])
    told = capsys.readouterr().out
    assert told.count("\n> say") == 2
    assert told.count("-" * 43) == 4
    assert all(len(line) <= 43 for line in told.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks"], "nothing to evaluate"),
        (["--judge.name", "x"], "needs a reference and prompts"),
        (["--questions", "x"], "need a judge"),
    ],
)
def test_what_is_missing_is_said(words, said, folder):
    with pytest.raises(SystemExit, match=said):
        main(["evaluate", "--model.name", str(folder / "policy"), *words])


def test_without_lm_eval_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SystemExit, match=re.escape("gsm8k, hellaswag, mmlu) need lm-eval: install windgames[eval]")):
        main(["evaluate", "--model.name", str(folder / "policy")])


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(0)
    for _ in range(200):
        texts = [list(rng.choice([*"abcdef"], rng.integers(1, 12))) for _ in range(rng.integers(2, 5))]
        joined = [" ".join(t) for t in texts]
        settings = {"smooth_method": "floor", "smooth_value": 0.5, "tokenize": "none", "use_effective_order": True}
        expected = sacrebleu.sentence_bleu(joined[0], joined[1:], **settings).score / 100
        assert bleu(texts[0], texts[1:]) == pytest.approx(expected, abs=1e-9)


# -- a real server -------------------------------------------------------------------------------------------


@pytest.fixture
def real_server(tmp_path):
    with servers.transformers_serve(tmp_path) as address:
        yield address


@pytest.mark.slow
def test_questions_graded_by_a_real_server(folder, real_server, tmp_path):
    """The protocol of a server that is none of ours; what a random model says cannot be read, and is counted."""
    words = ["evaluate", "--model.name", folder / "policy", "--model.max-new-tokens", 4]
    words += ["--questions", folder / "questions.jsonl", "--grader.url", real_server]
    words += ["--grader.model", folder / "other", "--grader.tries", 1, "--grader.max-tokens", 8]
    main([str(w) for w in [*words, "--out", tmp_path / "e.json"]])
    rows = {r["measure"]: r for r in json.loads((tmp_path / "e.json").read_text())["rows"]}
    assert rows["unparsed replies"]["n"] == 5
    assert rows["unparsed replies"]["mean"] + sum(rows[f"grade, turn {t}"]["n"] for t in (1, 2)) == 5
    with pytest.raises(ValueError, match=r"answered [45]"):
        Endpoint(real_server, str(tmp_path / "no-model"))([[{"role": "user", "content": "hi"}]])
