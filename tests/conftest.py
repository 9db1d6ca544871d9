import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile(
    "dev", deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("dev"), derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session", params=["numpy", "torch", "array_api_strict"])
def library(request):
    return pytest.importorskip(request.param)
