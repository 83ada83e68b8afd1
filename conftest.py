"""Before any test imports torch: one thread per process, and no way to the network.

The tests' models are so small that threads only wait for one another, all the more beside other workers.
"""

import atexit
import os
import shutil
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _library in ("HF_HUB", "HF_DATASETS", "TRANSFORMERS"):
    os.environ[f"{_library}_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# Where transformers copies the code that a model folder brings: not into the home of whoever runs the tests.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="unlearn-suite-test-modules-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)
