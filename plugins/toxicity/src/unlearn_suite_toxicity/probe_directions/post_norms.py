"""The norms between a block's output matrices and the residual stream (OLMo-2, Gemma 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterable

from unlearn_suite import ModelShape, PlanError

# On families without the first of a pair the second may be there as the norm before the MLP, as on Llama.
PAIRS = (
    ("post_feedforward_layernorm", "post_attention_layernorm"),
    ("post_mlp_layernorm", "post_self_attn_layernorm"),
)


def after(shape: ModelShape, blocks: Iterable[int]) -> tuple[str, ...]:
    """Names of the gains after the MLP and the attention of each block.

    Raises `PlanError` for a model that adds what its matrices write as it is.
    """
    found: list[str] = []
    for block in blocks:
        path = f"{shape.blocks_path}.{block}"
        pairs = [tuple(f"{path}.{name}.weight" for name in pair) for pair in PAIRS]
        pair = next((p for p in pairs if all(name in shape.tensors for name in p)), None)
        if pair is None:
            raise PlanError(
                f"`post_norm` asks for the norms after attention and MLP, and this model ({shape.model_type}) has none",
                code="no-such-tensor",
                hint="leave `post_norm` out: it is for OLMo-2, Gemma 2 and Gemma 3",
            )
        found += pair
    return tuple(found)
