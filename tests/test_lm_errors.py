"""What goes wrong outside of the program ends in one line that says what to do."""

import re
import signal
import socket

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny
from test_lm_cli import flags

from windlm.cli import main, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    lm_tiny.make(folder / "policy")
    lm_tiny.write_lines(folder / "prompts.jsonl", [{"prompt": f"say {c}"} for c in "ab"])
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """No hub can be reached."""

    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for module in ("huggingface_hub.constants", "datasets.config"):  # no waiting and trying again
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)


def line(words):
    """The message that a command ends with, which is one line."""
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    assert "\n" not in str(ended.value).strip()
    return str(ended.value)


COMMANDS = {
    "train": lambda folder, **more: flags(folder, folder / "out", **more),
    "evaluate": lambda folder, **more: ["evaluate", *given(folder, **{"out": folder / "e.json"} | more)],
    "sample": lambda folder, **more: ["sample", *given(folder, **more)],
}


def given(folder, **more):
    names = {"model.name": folder / "policy", "data.source": folder / "prompts.jsonl"} | more
    return [w for name, value in names.items() for w in (f"--{name}", str(value))]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_or_data_set_that_is_nowhere(command, folder, no_network):
    told = line(COMMANDS[command](folder, **{"model.name": "nobody/nothing"}))
    assert "nobody/nothing" in told
    told = line(COMMANDS[command](folder, **{"data.source": "nobody/no-data"}))
    assert "nobody/no-data" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_instead_of_a_model(command, folder, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    (tmp_path / "run" / "config.json").write_text("{}")
    told = line(COMMANDS[command](folder, **{"model.name": tmp_path / "run"}))
    assert f"give {str(tmp_path / 'run' / 'model')!r}" in told


def test_an_output_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    places = {"train": "train.out", "evaluate": "out"}
    for command, name in places.items():
        told = line(COMMANDS[command](folder, **{name: tmp_path / "file" / "x"}))
        assert str(tmp_path / "file") in told
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    told = line(["report", tmp_path / "run", "--out", tmp_path / "file" / "r.html"])
    assert str(tmp_path / "file" / "r.html") in told


@pytest.mark.parametrize("most", [4_000, 20_000, 40_000])
def test_a_disk_that_is_full(most, folder, tmp_path):
    """Files cannot grow beyond a size, so that writing fails in another place for each."""
    resource = pytest.importorskip("resource")
    before, kind = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        told = line(flags(folder, tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kind)
    assert f"Cannot write {tmp_path / 'run'}" in told.replace("write to", "write")
    assert "File too large" in told
    assert "Make room or choose another folder" in told


# -- the hub -------------------------------------------------------------------------------------------------


def test_a_model_is_pushed_by_transformers_own_call(folder, tmp_path, monkeypatch):
    """Which calls are made; no hub has been tried."""
    import transformers

    pushed = []

    def push(self, name, *_, **__):
        pushed.append((type(self).__name__, name))

    monkeypatch.setattr(run, "whoami", lambda: {"name": "me"})
    for kind in (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, run.ModelCard):
        monkeypatch.setattr(
            kind, "push_to_hub", lambda self, name, *_, **__: pushed.append((type(self).__name__, name))
        )
    main([*flags(folder, tmp_path / "run"), "--push-to-hub", "me/mine"])
    assert [name for _, name in pushed] == ["me/mine"] * 3
    assert pushed[0][0] == "LlamaForCausalLM"
    assert pushed[2][0] == "ModelCard"


def test_a_hub_that_cannot_be_reached_is_said_before_training(folder, tmp_path, no_network):
    told = line([*flags(folder, tmp_path / "run"), "--push-to-hub", "me/mine"])
    assert re.search(r"push_to_hub needs the hub .* log in with hf auth login", told)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert "owner/name" in line([*flags(folder, tmp_path / "run"), "--push-to-hub", "mine"])
