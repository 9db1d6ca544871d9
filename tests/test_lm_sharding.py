"""Sharded weights: torch's fully_shard, set up by accelerate, on two processes of a CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import lm_run
import lm_tiny
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from windlm import sharding
from windlm.cli import run
from windlm.data import Data
from windlm.models import JudgeSettings, LoraSettings, ModelSettings
from windlm.tabular import small_policy
from windlm.train import Config
from windlm.weights import WeightSnapshots

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def two(out, *arguments):
    """Run lm_run by two processes that share the weights."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    program = [lm_run.__file__, out, "--processes", "2", "--sharded", *arguments]
    return subprocess.run(
        [*launch, *map(str, program)], env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


def checkpoint(folder, rank):
    (found,) = (folder / "checkpoints").glob("round-*")
    return found.name, load_file(found / "state" / f"{rank}-of-2.safetensors")


def difference(one, other):
    return max(float((one[name] - other[name]).detach().abs().max()) for name in other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="accelerate would shard over the GPUs")
@pytest.mark.parametrize(
    ("objective", "draws", "rows", "prompts", "adapter"),
    [
        pytest.param("extragradient", 2, 2, 4, False, id="all weights", marks=pytest.mark.slow),
        pytest.param("jbond", 8, 2048, 2, True, id="LoRA", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_sharded_processes_are_one(tmp_path, objective, draws, rows, prompts, adapter):
    """Two draws at a time end early on one process and not on the other; of two prompts a round one may be new."""
    if adapter:
        pytest.importorskip("peft")
    settings = {"objective": objective, "draws": draws, "rows": rows, "prompts_per_round": prompts}
    whole, _ = lm_run.main(tmp_path / "one", adapter=adapter, **settings)
    arguments = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments += ["--adapter"] if adapter else []
    cut = two(tmp_path / "two", *arguments, "--stop", 4)
    assert cut.returncode != 0
    assert checkpoint(tmp_path / "two", 0)[0] == "round-000003", cut.stderr[-3000:]
    done = two(tmp_path / "two", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]

    # the whole weights are those of one process
    kept = "adapter/adapter_model.safetensors" if adapter else "model/model.safetensors"
    one, both = (load_file(tmp_path / n / kept) for n in ("one", "two"))
    begin = small_policy(letters=4, length=2, width=16, spread=0.3)
    begin = lm_run.adapted(begin) if adapter else begin
    begin.save(tmp_path / "begin")
    assert set(one) == set(both)
    assert difference(one, both) < 1e-4 < 0.01 < difference(load_file(tmp_path / "begin" / Path(kept).name), both)

    # each process has a part of them, of the optimiser's state, and of what was set aside
    parts = [checkpoint(tmp_path / "two", rank)[1] for rank in (0, 1)]
    weights = WeightSnapshots(whole, tmp_path / "snapshots").weights()
    for i, (name, p) in enumerate(weights.items()):
        shares = [part[f"weights/{name}"] for part in parts]
        assert all(len(s) <= (len(p) + 1) // 2 for s in shares)
        assert (torch.cat(shares) - p).abs().max() < 1e-4
        for part, here in zip(parts, shares, strict=True):
            assert part[f"optimizer/{i}/exp_avg"].shape == here.shape
            slots = [x for k, x in part.items() if k.startswith("slots/") and k.endswith(f"/{name}")]
            assert all(x.shape == here.shape for x in slots)

    # one process goes on from the checkpoint of two
    shutil.rmtree(tmp_path / "one")
    again, rows = lm_run.main(tmp_path / "two", adapter=adapter, **settings, rounds=7, schedule="cosine")
    assert rows[-1]["round"] == 7
    longer, _ = lm_run.main(tmp_path / "longer", adapter=adapter, **settings, rounds=6)
    longer, _ = lm_run.main(tmp_path / "longer", adapter=adapter, **settings, rounds=7)
    ours, theirs = (WeightSnapshots(p, tmp_path).weights() for p in (again, longer))
    assert difference(ours, theirs) < 2e-4

    # and two from that of one
    more = two(tmp_path / "two", *arguments, "--rounds", 8)
    assert more.returncode == 0, more.stderr[-3000:]
    lm_run.main(tmp_path / "longer", adapter=adapter, **settings, rounds=8)
    one, both = (load_file(tmp_path / n / kept) for n in ("longer", "two"))
    assert difference(one, both) < 3e-4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_model_folder_can_be_made_from_the_adapter(tmp_path):
    """As it is where the process that writes it has no whole weights."""
    pytest.importorskip("peft")
    (tmp_path / "prompts.txt").write_text("ab\ncd\n")
    config = run.RunConfig(
        model=ModelSettings(lm_tiny.make(tmp_path / "tiny"), max_new_tokens=3),
        data=Data(str(tmp_path / "prompts.txt")),
        judge=JudgeSettings("reward", f"{lm_tiny.__file__}:vowels"),
        train=Config(tmp_path / "run", rounds=1, draws=4, batch_prompts=1, learning_rate=0.1, cpu=True, progress=False),
        lora=LoraSettings(4),
    )
    run.start(config)
    run.save_merged(run.load_trained(config), tmp_path / "again")
    there, again = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "run" / "model", tmp_path / "again")
    )
    assert difference(there, again) == 0
    assert difference(load_file(tmp_path / "tiny" / "model.safetensors"), again) > 1e-3


def test_bad_input(tmp_path):
    policy = small_policy(letters=3, length=2, width=8)

    def prepare(kind=DistributedType.FSDP, **settings):
        plugin = FullyShardedDataParallelPlugin(**{"fsdp_version": 2} | settings)
        state = SimpleNamespace(fsdp_plugin=plugin)
        sharding.prepare(SimpleNamespace(distributed_type=kind, state=state), policy, None)

    with pytest.raises(ValueError, match="set fsdp_version to 2"):
        prepare(fsdp_version=1)
    with pytest.raises(ValueError, match="set fsdp_offload_params to false"):
        prepare(cpu_offload=True)
    with pytest.raises(ValueError, match=r"DeepSpeed .* use FSDP with fsdp_version 2"):
        prepare(DistributedType.DEEPSPEED)
    with pytest.raises(ValueError, match="Mixed precision fp16 is not supported"):
        sharding.prepare(SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="fp16"), policy, None)
    policy.engine = lambda *_: []
    with pytest.raises(ValueError, match="set sampler to 'own'"):
        prepare()
    policy.engine = None
    snapshots = WeightSnapshots(policy, tmp_path)
    snapshots.save("half")
    other = WeightSnapshots(small_policy(letters=4, length=2, width=8), tmp_path)
    with pytest.raises(ValueError, match=r"does not hold all of|has rows of shape"):
        other.read("half")


def test_what_is_not_sharded_stays_as_it_is():
    policy = small_policy(letters=3, length=2, width=8)
    assert sharding.whole_weights(policy, True) is None
    assert not sharding.all_agree(False, policy)
