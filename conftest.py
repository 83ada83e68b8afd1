"""Before any test imports torch: one thread per process, and no way to the network.

The tests' models are so small that threads only wait for one another, all the more beside other workers.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _library in ("HF_HUB", "HF_DATASETS", "TRANSFORMERS"):
    os.environ[f"{_library}_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# Where transformers copies the code that a model folder brings: not into the home of whoever runs the tests.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="unlearn-suite-test-modules-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of published data sets, one folder each; tests on them are skipped where it is not told."""
    folder = os.environ.get("UNLEARN_SUITE_PUBLIC_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("UNLEARN_SUITE_PUBLIC_DATA names no folder")
    return Path(folder)
