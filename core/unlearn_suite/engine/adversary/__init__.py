"""A simulated attacker: inner steps on a model that is put back bit for bit, and what they teach an outer loss.

`Adversary.walk` takes the steps one at a time, for whoever wants to read the attacked model on the way (a
relearning attack reads its scores there). `Adversary.attack` is the same walk with an outer loss read out at
chosen steps, and the gradient of these read-outs for the weights before the attack: what meta-learned
objectives add to their own gradient (MLAC arXiv:2211.14946, TAR 2408.00761, MUDMAN 2506.12484).
"""

from .rules import InnerOptimizer
from .service import Adversary, Attack, Order
from .space import InnerTensors
from .walk import Walk

__all__ = ["Adversary", "Attack", "InnerOptimizer", "InnerTensors", "Order", "Walk"]
