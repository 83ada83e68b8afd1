"""One model's weights spread over several processes with FSDP2, gathered block by block while they are used.

FSDP2 (`fully_shard`) keeps the shards and gathers them; its own hooks are not used, because they expect every
module to run to its end and know only `loss.backward()`. Here a group of weights (a block, the embeddings, the LM
head) is gathered by `enter` and given back by `leave`, which do the same in reverse in the backward pass. A trained
tensor takes part in autograd as its shard: its gradient, from `backward` and from `torch.autograd.grad` alike, is
the sum over all processes, sharded as the parameter is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PlanError, PrerequisiteError, TrainingError
from ..specs import Train
from .distributed import Processes
from .shape import ModelShape

Group = int | str
"""what is gathered together: a block's index, "embed" or "head" """


class _Holder(nn.Module):
    """Carries FSDP2's state for a group of modules without standing in their way: it is never called itself."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)


class ShardedWeights:
    """Every process holds 1/N of the blocks', the embeddings' and the LM head's tensors, cut along their first
    dimension. The little that is outside (final norm, position table) is whole on every process.
    """

    def __init__(self, model: nn.Module, shape: ModelShape, processes: Processes, device: torch.device) -> None:
        self.shape = shape
        self.processes = processes
        self._places = _places(model)
        groups = _groups(model, shape)
        self.embed: Group = "embed"
        self.head: Group = "head" if "head" in groups else "embed"
        self.group_of: dict[str, Group | None] = dict.fromkeys(self._places)
        self._holders: dict[Group, Any] = {}
        mesh = _mesh(device, processes.size)
        for key, modules in groups.items():
            self._holders[key] = self._shard(key, modules, mesh)
        _move_rest(model, device)
        self._shards: dict[str, nn.Parameter] = dict(model.named_parameters())

    def _shard(self, key: Group, modules: list[nn.Module], mesh: Any) -> Any:
        from torch.distributed.fsdp import fully_shard

        holder = _Holder(modules)
        inside = {id(p) for p in holder.parameters() if p.ndim > 0}
        for name, places in self._places.items():
            module, leaf = places[0]
            if id(module._parameters[leaf]) in inside:
                self.group_of[name] = key
        scalars = {p for p in holder.parameters() if p.ndim == 0}
        return fully_shard(holder, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)

    # --- gathering

    def gather(self, key: Group) -> None:
        """All of a group's tensors, on every process. Every process must call this at the same point."""
        self._holders[key].unshard()

    def release(self, key: Group) -> None:
        """Back to the shard; the gathered copy's memory is freed, what autograd has saved of it stays valid."""
        self._holders[key].reshard()

    def release_all(self) -> None:
        for holder in self._holders.values():
            holder.reshard()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The model as an ordinary one, with its present values."""
        for key in self._holders:
            self.gather(key)
        try:
            yield
        finally:
            self.release_all()

    def enter(self, key: Group, h: Tensor) -> Tensor:
        """Gather for what comes next; when the gradient of `h` is known, give back."""
        result: Tensor = _Enter.apply(h, self, key)
        return result

    def leave(self, key: Group, result: Any) -> Any:
        """Give back; when the backward pass comes to `result` (a tensor, or a tuple that begins with one), gather."""
        if isinstance(result, tuple):
            return (_Leave.apply(result[0], self, key), *result[1:])
        return _Leave.apply(result, self, key)

    # --- the trained tensors

    def tensors(self, key: Group | None, originals: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """What stands for a gathered group's tensors in a pass: {name: whole tensor}, for those that may change.

        With `originals` these. Else, while autograd records, the present values, connected with the shards.
        `key` None: the tensors that are whole on every process.
        """
        names = [n for n, group in self.group_of.items() if group == key]
        if originals is not None:
            return {n: whole(originals[n]) for n in names if n in originals}
        if not torch.is_grad_enabled():
            return {}
        shards = {n: self._shards[n] for n in names if self._shards[n].requires_grad}
        if key is None:
            return {n: _Copied.apply(shard) for n, shard in shards.items()}
        return {n: _Gathered.apply(shard, (self._present(n),)) for n, shard in shards.items()}

    def _present(self, name: str) -> Tensor:
        module, leaf = self._places[name][0]
        value = module._parameters[leaf]
        assert value is not None
        return value.detach()

    @contextmanager
    def placed(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Tensors in the parameters' places, tied ones in all of theirs."""
        places = [(m, leaf, tensor) for n, tensor in tensors.items() for m, leaf in self._places[n]]
        before = [module._parameters[leaf] for module, leaf, _ in places]
        try:
            for module, leaf, tensor in places:
                module._parameters[leaf] = tensor  # type: ignore[assignment]
            yield
        finally:
            for (module, leaf, _), parameter in zip(places, before, strict=True):
                module._parameters[leaf] = parameter

    @contextmanager
    def beside(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Inside, parameters that were added to modules of the model are among those that are whole everywhere."""
        for name, parameter in parameters.items():
            path, _, leaf = name.rpartition(".")
            self._places[name], self._shards[name] = [(model.get_submodule(path), leaf)], parameter
            self.group_of[name] = None
        try:
            yield
        finally:
            for name in parameters:
                del self._places[name], self._shards[name], self.group_of[name]

    def dissolve(self) -> None:
        """An ordinary model again, whole on every process, with the present values."""
        for key in list(self._holders):
            self.gather(key)
            names = [n for n, group in self.group_of.items() if group == key]
            values = {n: self._present(n).clone() for n in names}
            self._holders.pop(key).reshard()
            for name in names:
                parameter = nn.Parameter(values[name], requires_grad=False)
                for module, leaf in self._places[name]:
                    module._parameters[leaf] = parameter
        self._shards = {}
        self.group_of = dict.fromkeys(self._places)


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weights: ShardedWeights, key: Group) -> Tensor:
        ctx.weights, ctx.key = weights, key
        weights.gather(key)
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.weights.release(ctx.key)
        return grads[0], None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weights: ShardedWeights, key: Group) -> Tensor:
        ctx.weights, ctx.key = weights, key
        weights.release(key)
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():  # autograd records the backward pass itself
            raise TrainingError(
                "second-order gradients are not supported on several devices: gathered weights are given back",
                code="second-order-sharded",
                hint="use first-order gradients, or compute.devices: 1",
            )
        ctx.weights.gather(ctx.key)
        # The lowest trained block's input needs no gradient: nothing else would give this block back.
        torch.autograd.Variable._execution_engine.queue_callback(ctx.weights.release_all)
        return grads[0], None, None


class _Gathered(torch.autograd.Function):
    """shard -> whole tensor; the gradient is summed over the processes and sharded again."""

    @staticmethod
    def forward(ctx: Any, shard: Any, value: tuple[Tensor]) -> Tensor:
        ctx.mesh, ctx.placements = shard.device_mesh, shard.placements
        return value[0].detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        from torch.distributed.tensor import DTensor, Partial

        # in float32: a sum over processes in bf16 would lose what each has added up
        own = DTensor.from_local(grads[0].float().contiguous(), ctx.mesh, [Partial()], run_check=False)
        return own.redistribute(placements=ctx.placements).to(grads[0].dtype), None


class _Copied(torch.autograd.Function):
    """A tensor that is whole on every process; the gradient is summed over them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total = grads[0].float().contiguous().clone()
        torch.distributed.all_reduce(total)
        return total.to(grads[0].dtype)


def check_supported(train: Train) -> None:
    """Raises `PlanError` for what a stage cannot have on several devices."""
    reasons = {
        "compile": (train.compile, "compiled code would keep tensors that are given back after every block"),
        "optimizer: adamw8bit": (train.optimizer == "adamw8bit", "bitsandbytes knows no sharded tensors"),
    }
    for setting, (wanted, why) in reasons.items():
        if wanted:
            raise PlanError(
                f"`{setting}` is not supported on several devices: {why}",
                code="train-devices",
                hint=f"leave {setting.partition(':')[0]} out of the stage, or set compute.devices to 1",
            )


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every process; any other tensor as it is."""
    full = getattr(tensor, "full_tensor", None)
    return full() if full else tensor


def is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def whole_tree(value: Any) -> Any:
    """`whole` of every tensor in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return whole(value)
    if isinstance(value, dict):
        return {key: whole_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole_tree(item) for item in value)
    return value


def placed_like(value: Any, parameter: Tensor) -> Any:
    """A whole tensor cut as `parameter` is, when that is sharded and of the same shape; else the value as it is."""
    placements = getattr(parameter, "placements", None)
    if placements is None or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
    return distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)


def _mesh(device: torch.device, size: int) -> Any:
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            f"several devices need torch 2.6 or newer; this is {torch.__version__}",
            code="torch-version",
            where="compute.devices",
            hint='pip install "torch>=2.6"',
        ) from error
    return init_device_mesh(device.type, (size,))


def _places(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """{parameter name: every (module, attribute) that holds it}: tied parameters have several."""
    names: dict[int, str] = {id(p): n for n, p in model.named_parameters()}
    places: dict[str, list[tuple[nn.Module, str]]] = {n: [] for n in names.values()}
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                places[names[id(parameter)]].append((module, leaf))
    return places


def _groups(model: Any, shape: ModelShape) -> dict[Group, list[nn.Module]]:
    """Blocks, embeddings and head; a head that is tied to the embeddings is one group with them."""
    groups: dict[Group, list[nn.Module]] = {}
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    groups["embed"] = [embed]
    if head is not None:
        tied = {id(p) for p in embed.parameters()} & {id(p) for p in head.parameters()}
        groups.setdefault("embed" if tied else "head", []).append(head)
    for index, block in enumerate(model.get_submodule(shape.blocks_path).children()):
        groups[index] = [block]
    return groups


def _move_rest(model: nn.Module, device: torch.device) -> None:
    """What is not sharded goes to the device as it is."""
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and not is_sharded(parameter):
                parameter.data = parameter.data.to(device)
        for leaf, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[leaf] = buffer.to(device)
