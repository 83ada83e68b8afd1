"""What a stage will need, told before any weight is loaded.

The objective is run for real (`requirements`, `setup`, steps, `finish`) on two twins of the model: the same
architecture and number of blocks, a few units wide, random weights, the plan's own texts and batch shapes. Every
allocation and every operator is noted. A size that is equal on both twins comes from the data; one that differs
comes from the model, and which of its widths it is made of follows from the ratio (see `scale`). So all sizes are known
at full width, and playing the notes back gives the peak. Nobody has to declare what an objective costs.
"""

from .attack import AttackEstimate, AttackPlan, estimate_attack
from .record import Measured, Recorder, play
from .stage import StageEstimate, StagePlan, estimate_stage
from .twin import Family

__all__ = [
    "AttackEstimate",
    "AttackPlan",
    "Family",
    "Measured",
    "Recorder",
    "StageEstimate",
    "StagePlan",
    "estimate_attack",
    "estimate_stage",
    "play",
]
