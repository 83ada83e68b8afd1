"""A plan's model reference -> its identity, its local folder, or the loaded model.

A reference is {"asset": NAME}, {"hf": ID, "revision": COMMIT} or {"path": FOLDER}, and may carry
{"trust_remote_code": true}. Only `load` and `load_part` import torch.
"""

from __future__ import annotations

from .identity import identity
from .load import load, load_part
from .refs import Say, asset_names, local_folder

__all__ = ["Say", "asset_names", "identity", "load", "load_part", "local_folder"]
