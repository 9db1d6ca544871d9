"""The command line: ``windlm train | evaluate | sample | reward | report``, or ``python -m windlm``.

Every command takes its settings as flags, from a YAML or JSON file (``--config run.yaml``), or both: flags win.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow small machines
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's

from .commands import main  # noqa: E402

__all__ = ["main"]
