"""Benchmarks: local copies of their data, official scoring, resuming, paired differences, several models."""

import gzip
import json
import math
import re
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")
datasets = pytest.importorskip("datasets")

import lm_tiny

from windlm.cli import main
from windlm.evaluate.benchmark_data import check_tasks, local_data, local_splits
from windlm.evaluate.benchmarks import fingerprint, rows_of
from windlm.evaluate.command import EvaluateConfig, EvaluatedModel, models, settled
from windlm.evaluate.statistics import Interval
from windlm.evaluate.tables import paired_difference, row, table, with_differences
from windlm.models import ModelSettings, load_policy

WORDS = ["red", "blue", "green", "black"]


def gsm8k(i):
    return {"question": f"Ann has {i} eggs and gets one.\u2028How many?", "answer": f"{i} + 1\n#### {i + 1}"}


def hellaswag(i):
    endings = [f"paints it {word}." for word in WORDS]
    texts = {"activity_label": "Painting", "ctx_a": f"A man has wall {i}.", "ctx_b": "he", "source_id": "s"}
    texts |= {"split": "val", "split_type": "indomain", "ctx": f"A man has wall {i}. he", "label": str(i % 4)}
    return {"ind": i, "endings": endings} | texts


def mmlu(i, subject="anatomy"):
    return {"question": f"Which is {i}?", "subject": subject, "choices": WORDS, "answer": i % 4}


def put(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    put(folder / "gsm8k" / "test.jsonl.gz", map(gsm8k, range(5)))
    put(folder / "gsm8k" / "train.jsonl", map(gsm8k, range(10, 16)))
    put(folder / "Rowan" / "hellaswag" / "validation.jsonl", map(hellaswag, range(6)))
    both = [mmlu(i, subject) for subject in ("anatomy", "virology") for i in range(4)]
    put(folder / "mmlu" / "test.jsonl", both)
    put(folder / "mmlu" / "dev.jsonl", both[::2])
    put(folder / "ai2_arc" / "ARC-Easy" / "test.jsonl", [{"question": "q", "choices": {"text": ["a"]}}])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return lm_tiny.make(folder / "one"), lm_tiny.make(folder / "two", seed=3)


# -- local copies of data ------------------------------------------------------------------------------------


def test_data_sets_of_the_hub_are_found_in_the_folder(data):
    original = datasets.load_dataset
    with local_data(data):
        math_ = datasets.load_dataset(path="openai/gsm8k", name="main")
        assert [list(math_[s]) for s in ("test", "train")] == [[gsm8k(i) for i in r] for r in (range(5), range(10, 16))]
        assert list(datasets.load_dataset("Rowan/hellaswag")["validation"]) == [hellaswag(i) for i in range(6)]
        virology = datasets.load_dataset("cais/mmlu", "virology")
        assert list(virology["test"]) == [mmlu(i, "virology") for i in range(4)]
        assert list(datasets.load_dataset("cais/mmlu", "virology", split="dev")) == list(virology["dev"])
        assert len(datasets.load_dataset("allenai/ai2_arc", "ARC-Easy")["test"]) == 1
        one = datasets.load_dataset("json", data_files={"test": str(data / "mmlu" / "test.jsonl")})  # not of the hub
        assert len(one["test"]) == 8
        assert list(virology["train"]) == []  # a split that nobody needs may be missing
        with pytest.raises(
            ValueError, match=re.escape("no copy of the data set 'a/b': put its splits there as a/b/test")
        ):
            datasets.load_dataset("a/b")
        with pytest.raises(ValueError, match="no rows of 'law', a configuration of 'cais/mmlu'"):
            datasets.load_dataset("cais/mmlu", "law")
    assert datasets.load_dataset is original


def test_shards_of_a_split_are_joined(tmp_path):
    for i in range(2):
        put(tmp_path / "d" / f"test-0000{i}-of-00002.jsonl", [{"x": i}])
    assert list(local_splits(tmp_path, "owner/d", None)["test"]) == [{"x": 0}, {"x": 1}]


@pytest.mark.parametrize(
    ("eval_docs", "examples", "shots", "said"),
    [
        ([], [1] * 9, None, "takes its questions from the split 'test' of the data set 'a/b', but F has none of them"),
        ([1], [1] * 4, None, "takes 5 examples from the split 'train' of the data set 'a/b', but F has 4"),
        ([1], [], 2, "takes 2 examples from the split 'train'"),
        ([1], [], 0, None),
    ],
)
def test_what_a_task_lacks_is_said_before_anything_is_asked(eval_docs, examples, shots, said):
    config = {"task": "t", "dataset_path": "a/b", "num_fewshot": 5, "test_split": "test", "fewshot_split": None}
    config |= {"training_split": "train", "validation_split": None, "fewshot_config": None}
    task = types.SimpleNamespace(
        config=types.SimpleNamespace(**config), eval_docs=eval_docs, fewshot_docs=lambda: examples
    )
    if said is None:
        check_tasks([task], shots, "F")
    else:
        with pytest.raises(ValueError, match=re.escape(said)):
            check_tasks([task], shots, "F")


# -- differences ---------------------------------------------------------------------------------------------


def test_a_paired_difference_covers_and_is_narrower_than_two_means():
    rng = np.random.default_rng(0)
    hits, widths, separate = 0, [], []
    for _ in range(300):
        hard = rng.random(200)  # questions differ in difficulty, and models agree on most of them
        ours, theirs = (np.where(rng.random(200) < 0.2, rng.random(200), hard) < p for p in (0.55, 0.5))
        named = [{str(i): float(v) for i, v in enumerate(x)} for x in (ours, theirs)]
        gap, n = paired_difference(*named)
        assert n == 200
        hits += gap.low <= 0.05 <= gap.high
        widths.append(gap.high - gap.low)
        separate.append(2 * 1.96 * math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 200))
    assert 0.90 < hits / 300 < 0.985
    assert np.mean(widths) < 0.8 * np.mean(separate)


def test_differences_are_of_the_shared_questions():
    gap, n = paired_difference({"a": 1.0, "b": 0.0, "x": 9.0}, {"b": 1.0, "a": 1.0, "y": 0.0})
    assert n == 2
    assert gap.mean == -0.5
    assert gap.high - gap.mean == pytest.approx(1.96 * np.std([0, -1], ddof=1) / math.sqrt(2))
    same = {str(i): float(i % 2) for i in range(60)}
    assert paired_difference(same, same)[0] == (0, -0.05, 0.05)  # no difference in 60: none above 3/60
    long = {str(i): 10.0 * i for i in range(60)}
    assert paired_difference(long, long)[0] == (0, 0, 0)
    assert math.isnan(paired_difference({"a": 1.0}, {"b": 1.0})[0].mean)


def test_lm_evals_results_become_rows_with_groups_and_values():
    samples = {
        leaf: [
            {"doc_id": i, "acc": float(i < right), "filter": how, "resps": []}
            for i in range(4)
            for how in ("none", "strict")
        ]
        for leaf, right in {"a": 1, "b": 3, "c": 4}.items()
    }
    results = {
        "results": {
            **{t: {"acc,none": x, "acc_stderr,none": 0.1, "alias": t} for t, x in {"a": 0.25, "b": 0.75}.items()},
            "c": {"acc,strict": 1.0, "acc_stderr,strict": "N/A"},
            "g": {"acc,none": 0.5, "acc_stderr,none": 0.07},
            "h": {"acc,none": 0.5, "acc_stderr,none": 0.07},
        },
        "group_subtasks": {"g": ["h"], "h": ["a", "b"], "a": [], "b": []},
        "n-samples": {leaf: {"effective": 4} for leaf in samples},
        "samples": samples,
    }
    rows = {r["measure"]: r for r in rows_of(results, "model", ["g", "c"])}
    assert {m: r["n"] for m, r in rows.items()} == {
        "a: acc": 4,
        "b: acc": 4,
        "c: acc (strict)": 4,
        "g: acc": 8,
        "h: acc": 8,
    }
    for r in rows.values():
        assert np.mean([*r["values"].values()]) == r["mean"]
    # a share has Wilson's interval, also at its end: the roots of (p - x)^2 = z^2 x (1 - x) / n
    for name, n in {"g: acc": 8, "c: acc (strict)": 4}.items():
        p, z2 = rows[name]["mean"], 1.959964**2
        roots = sorted(np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p]).real)
        assert (rows[name]["low"], rows[name]["high"]) == pytest.approx(roots, abs=1e-5)
    (other,) = rows_of({"results": {"d": {"f1,none": 0.3, "f1_stderr,none": 0.1}}}, "model", ["d"])
    assert (other["low"], other["high"]) == pytest.approx((0.3 - 0.196, 0.3 + 0.196))
    assert [m for m, r in rows.items() if r["part"]] == ["a: acc", "b: acc"]  # those of a group of a group


def test_the_table_of_several_models():
    one, other = {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0}
    rows = [
        row("acc", who, Interval(0.5, 0.1, 0.9), 2, v)
        for who, v in (("model", one), ("reference", other), ("run", one))
    ]
    rows = with_differences([r | {"part": False} for r in rows], "reference")
    assert [r.get("difference") for r in rows] == [-0.5, None, -0.5]
    told = table([*rows, rows[0] | {"part": True}])
    assert "-0.500 (" in told
    assert "1 rows of single parts" in told
    assert len(told.splitlines()) == 5


def test_models_have_short_names_that_differ():
    def named(*others):
        return models(EvaluateConfig(EvaluatedModel("m"), reference="r", others=others))

    assert [*named("/x/a", "org/b", "runs/c/model")] == ["model", "reference", "a", "b", "c/model"]
    assert [*named("/x/a", "/y/a")] == ["model", "reference", "x/a", "y/a"]
    assert [*named("/x/a", "/x/a")] == ["model", "reference", "a"]


# -- a model of a run ----------------------------------------------------------------------------------------


def test_a_runs_model_is_sampled_as_it_was_trained(tmp_path, model):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    config = {"max_new_tokens": 20, "temperature": 0.7, "stop": ["\n", "User:"], "name": "base"}
    (run / "config.json").write_text(json.dumps({"model": config}))
    found = settled(EvaluatedModel(str(run / "model"), top_p=0.5))
    assert (found.max_new_tokens, found.temperature, found.top_p, found.stop) == (20, 0.7, 0.5, ("\n", "User:"))
    assert settled(EvaluatedModel(str(run / "model"), max_new_tokens=128)).max_new_tokens == 128
    (run / "checkpoints" / "round-000001").mkdir(parents=True)
    assert settled(EvaluatedModel(str(run / "checkpoints" / "round-000001"))).max_new_tokens == 20
    assert settled(EvaluatedModel(model[0])) == ModelSettings(model[0])
    given = ModelSettings(str(run / "model"), max_new_tokens=3)
    assert settled(given) == given
    with pytest.raises(SystemExit, match=re.escape(f"is a run, not a model: give '{run / 'model'}'")):
        main(["evaluate", "--model.name", str(run), "--tasks", "gsm8k", "--out", str(tmp_path / "e.json")])
    (run / "model").rmdir()
    with pytest.raises(SystemExit, match="is a run, not a model: it has no model before it has finished"):
        main(
            [
                "sample",
                "--model.name",
                str(run),
                "--data.source",
                lm_tiny.write_lines(tmp_path / "p.jsonl", [{"prompt": "a"}]),
            ]
        )


def test_an_output_that_cannot_be_written_is_said_first(tmp_path, model):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "e.json", tmp_path):
        with pytest.raises(SystemExit, match="Cannot write"):
            main(["evaluate", "--model.name", model[0], "--tasks", "gsm8k", "--out", str(out)])


# -- lm-eval itself ------------------------------------------------------------------------------------------


def test_weights_have_a_fingerprint(model):
    one, two = (load_policy(ModelSettings(name)) for name in model)
    again = load_policy(ModelSettings(model[0]))
    assert fingerprint(one) == fingerprint(again) != fingerprint(two)
    with torch.no_grad():
        next(again.model.parameters()).reshape(-1)[0] += 1e-3
    assert fingerprint(one) != fingerprint(again)


@pytest.mark.slow
def test_official_scoring_of_local_copies_resumed_and_paired(data, model, tmp_path, monkeypatch, capsys):
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["evaluate", "--model.name", model[0], "--reference", model[1], "--benchmark-data", data]
    words += ["--tasks", "hellaswag", "mmlu_anatomy", "gsm8k", "--limit", 4, "--shots", 0, "--out", tmp_path / "e.json"]
    asked = []
    forward = huggingface.HFLM._model_call

    def counted(self, inputs, *rest, **settings):
        asked.append(len(inputs))
        return forward(self, inputs, *rest, **settings)

    monkeypatch.setattr(huggingface.HFLM, "_model_call", counted)
    main([str(w) for w in words])
    first = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert {r["measure"] for r in first} == {
        *("hellaswag: acc", "hellaswag: acc_norm", "mmlu_anatomy: acc"),
        *("gsm8k: exact_match (strict-match)", "gsm8k: exact_match (flexible-extract)"),
    }
    assert all(r["n"] == 4 for r in first)
    assert all(("difference" in r) == (r["of"] == "model") for r in first)
    # scored by hand: the ending with the largest log-probability per letter, of the texts as lm-eval cleans them
    policy = load_policy(ModelSettings(model[0]))
    right = 0
    for i in range(4):
        start = f"Painting: A man has wall {i}. He"
        scores = []
        for ending in hellaswag(i)["endings"]:
            ids, whole = (policy.tokenizer(t)["input_ids"] for t in (start, f"{start} {ending}"))
            with torch.no_grad():
                logits = policy.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            score = sum(float(logits[j - 1, whole[j]]) for j in range(len(ids), len(whole)))
            scores.append(score / len(ending))
        right += int(np.argmax(scores)) == i % 4
    (ours,) = (r for r in first if (r["measure"], r["of"]) == ("hellaswag: acc_norm", "model"))
    assert ours["mean"] == right / 4
    # the same again asks the model nothing, and more questions only for the new ones
    asked.clear()
    main([str(w) for w in words])
    assert asked == []
    assert json.loads((tmp_path / "e.json").read_text())["rows"] == first
    words[words.index("--limit") + 1] = 5
    main([str(w) for w in words])
    assert sum(asked) == 2 * 4  # one more question of hellaswag for each model, four endings each; mmlu has four
    assert "difference from the reference" in capsys.readouterr().out
    words[words.index("--shots") + 1] = 3
    with pytest.raises(SystemExit, match="takes 3 examples from the split 'train' of the data set 'Rowan/hellaswag'"):
        main([str(w) for w in words])
    with pytest.raises(SystemExit, match="knows no task 'hellaswug'"):
        main(["evaluate", "--model.name", model[0], "--tasks", "hellaswug", "--out", str(tmp_path / "x.json")])
