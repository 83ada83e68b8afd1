"""The shape of a model, known from its configuration alone: blocks, widths, tensor names.

Tensors are chosen by name, never by position: the sixth parameter of a block is `down_proj` on Llama and
`o_proj` on Qwen2 (METHODS 2.1, fact 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError

# What families call the same tensor, most specific first; matched as ".<candidate>.weight" at the end.
KINDS: Mapping[str, tuple[str, ...]] = {
    "attn_q": ("self_attn.q_proj", "attn.q_proj"),
    "attn_k": ("self_attn.k_proj", "attn.k_proj"),
    "attn_v": ("self_attn.v_proj", "attn.v_proj"),
    "attn_qkv": ("self_attn.qkv_proj", "attn.c_attn", "attention.query_key_value"),
    "attn_out": (
        "self_attn.o_proj",
        "self_attn.dense",
        "self_attn.out_proj",
        "attn.c_proj",
        "attn.out_proj",
        "attention.dense",
    ),
    "mlp_gate": ("mlp.gate_proj",),
    "mlp_up": ("mlp.up_proj", "mlp.c_fc", "mlp.dense_h_to_4h", "mlp.fc1", "mlp.fc_in"),
    "mlp_gate_up": ("mlp.gate_up_proj",),
    "mlp_out": ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.fc_out"),
}

# The gains between a block's output matrices and the residual stream: after the MLP, after the attention. One after the
# attention is told by the one after the MLP: Llama calls the norm before its MLP `post_attention_layernorm` too.
POST_NORMS = (
    ("post_feedforward_layernorm", "post_attention_layernorm"),
    ("post_mlp_layernorm", "post_self_attn_layernorm"),
)


@dataclass(frozen=True)
class ModelShape:
    """What is known of a model before its weights are loaded. Blocks count from 0; the output of a block is the
    residual stream after it."""

    n_blocks: int
    """number of transformer blocks"""
    hidden_size: int
    """D, the width of the residual stream"""
    vocab_size: int
    """V, the number of logits of a position"""
    blocks_path: str
    """name of the list of blocks, such as "model.layers": the tensors of block 3 begin with "model.layers.3.\""""
    tensors: Mapping[str, tuple[int, ...]]
    """full name -> shape of every parameter, in the model's order"""
    model_type: str = ""
    """the architecture as transformers calls it, such as "llama\""""

    @classmethod
    def of(cls, model: Any) -> ModelShape:
        """The shape of a transformers causal LM (on any device, `meta` too).

        Raises `PlanError` (`unknown-architecture`) for a model without a list of blocks.
        """
        config = model.config.get_text_config()
        path = find_blocks(model, config.num_hidden_layers)
        return cls(
            n_blocks=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            vocab_size=config.vocab_size,
            blocks_path=path,
            tensors={name: tuple(p.shape) for name, p in model.named_parameters()},
            model_type=config.model_type,
        )

    def check_block(self, block: int, what: str = "block") -> int:
        """`block` itself. Raises `PlanError` (`no-such-block`) unless it exists; `what` is its name in the message."""
        if not 0 <= block < self.n_blocks:
            raise PlanError(
                f"{what} {block} does not exist: the model has blocks 0 to {self.n_blocks - 1}",
                code="no-such-block",
                hint="choose a smaller number, or leave it out to use the depth rule",
            )
        return block

    def select(self, kind: str, blocks: Iterable[int]) -> tuple[str, ...]:
        """Full names of the weights (never biases) of one kind in the given blocks: one per block, in the order given.

        Raises `PlanError`: `tensor-kind` for a kind that is none of `KINDS`, `no-such-block`, and `no-such-tensor`
        where a block has no such weight (a family that fuses q, k and v has `attn_qkv`, and none of the three).
        """
        if kind not in KINDS:
            raise PlanError(f"unknown tensor kind {kind!r}", code="tensor-kind", hint="one of " + ", ".join(KINDS))
        names = []
        for block in blocks:
            self.check_block(block)
            prefix = f"{self.blocks_path}.{block}."
            found = [c for k in KINDS[kind] if (c := f"{prefix}{k}.weight") in self.tensors]
            if not found:
                raise PlanError(
                    f"this model ({self.model_type}) has no {kind!r} tensor in block {block}",
                    code="no-such-tensor",
                    hint="name the tensors by pattern instead",
                )
            names.append(found[0])
        return tuple(names)

    @property
    def post_norm(self) -> bool:
        """Whether blocks norm and scale what their output matrices write before it is added (OLMo-2, Gemma 2 and 3)."""
        return any(self.post_norms(block) for block in range(self.n_blocks))

    def post_norms(self, block: int) -> tuple[str, ...]:
        """Full names of the gains that scale what a block's output matrices write before it is added: the one after
        the MLP, then the one after the attention where there is one. Empty where it is added as it is.

        Raises `PlanError` (`no-such-block`).
        """
        prefix = f"{self.blocks_path}.{self.check_block(block)}."
        for names in POST_NORMS:
            mlp, attention = (f"{prefix}{name}.weight" for name in names)
            if mlp in self.tensors:
                return (mlp, attention) if attention in self.tensors else (mlp,)
        return ()

    def match(self, pattern: str) -> tuple[str, ...]:
        """Full names of all tensors that a regular expression matches in full, in the model's order.

        Raises `PlanError` (`no-such-tensor`) when it matches none.
        """
        names = tuple(name for name in self.tensors if re.fullmatch(pattern, name))
        if not names:
            raise PlanError(f"no tensor matches {pattern!r}", code="no-such-tensor")
        return names

    def block_of(self, name: str) -> int | None:
        """The block that a tensor belongs to, told from its full name; None for embeddings, final norm and LM head."""
        match = re.match(re.escape(self.blocks_path) + r"\.(\d+)\.", name)
        return int(match.group(1)) if match else None


def find_blocks(model: Any, n_blocks: int) -> str:
    """Path of the list of transformer blocks: the shallowest ModuleList of that length."""
    paths = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ == "ModuleList" and len(module) == n_blocks
    ]
    if not paths:
        raise PlanError(
            f"no list of {n_blocks} blocks found in {type(model).__name__}",
            code="unknown-architecture",
            hint="the model must be a decoder-only transformers model",
        )
    return min(paths, key=lambda path: (path.count("."), path))
