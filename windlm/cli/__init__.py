"""The command line: ``windlm train | evaluate | sample | reward | report``, or ``python -m windlm``.

Every command takes its settings as flags, from a YAML or JSON file (``--config run.yaml``), or both: flags win.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads slow small machines

from .commands import main

__all__ = ["main"]
