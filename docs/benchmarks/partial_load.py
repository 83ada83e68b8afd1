"""Load the first blocks of a model: time, bytes read and memory, against `from_pretrained`.

    python docs/benchmarks/partial_load.py MODEL            # a folder
    python docs/benchmarks/partial_load.py --synthetic 1.5  # a random bf16 model of that many GB in many shards

Both ways put the weights on one device in one dtype and then run a forward pass: `from_pretrained` the whole
model and its whole forward, the suite the blocks up to DEPTH and these alone. Each measurement is a process of its
own. The files are read once beforehand, so they come from the system's cache, not from the disk. Memory is what
is resident, pages of mapped files included; on the CPU `from_pretrained` maps the files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from unlearn_suite import Requirements, models
from unlearn_suite.engine.accounting import PeakMemory
from unlearn_suite.engine.batch import Encoded, collate
from unlearn_suite.engine.needs import needed_parameters
from unlearn_suite.engine.replay import Replay
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.models.folder import weight_files
from unlearn_suite.specs import Example

MB = 2**20
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def synthetic(folder: Path, gigabytes: float) -> Path:
    """A random Llama in bf16, about `gigabytes` in shards of 100 MB, with a character tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from unlearn_suite.testing.tiny import tiny_tokenizer

    width = 1024
    per_block = 4 * width * width + 3 * width * 4 * width
    blocks = max(8, round(gigabytes * 1e9 / 2 / per_block))
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=False,
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="100MB")
    torch.set_default_dtype(torch.float32)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """What a user of transformers writes."""
    transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=DTYPES[args.dtype], local_files_only=True
    ).to(args.device)
    with torch.no_grad():
        model(torch.arange(8, device=args.device)[None])
    return {"values": sum(p.numel() for p in model.parameters())}


def suite(args: argparse.Namespace) -> dict[str, Any]:
    """What a stage does that reads block `depth`."""
    ref = {"path": args.model}
    choose = lambda shape: needed_parameters(shape, Requirements((), reads=args.depth))  # noqa: E731
    model, _, absent = models.load_part(ref, DTYPES[args.dtype], args.device, choose)
    if absent is None:
        sys.exit("this model is loaded whole")
    row = Encoded(Example("x", "x"), tuple(range(8)), 2)
    with torch.no_grad():
        Replay(model, ModelShape.of(model)).blocks_to(collate([row], 0).to(args.device), stop=args.depth)
    return {"values": sum(p.numel() for p in model.parameters() if not p.is_meta)}


def worker(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    torch.set_num_threads(1)
    import_everything()
    if device.type == "cuda":
        torch.zeros(1, device=device)
    memory = PeakMemory(device)
    before, read = memory.peak() or 0, _bytes_read()
    start, cpu = time.perf_counter(), time.process_time()
    told = {"plain": plain, "suite": suite}[args.worker](args)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(
        json.dumps(
            {
                **told,
                "seconds": seconds,
                "cpu": cpu,
                "added": (memory.peak() or 0) - before,
                "read": _bytes_read() - read,
            }
        )
    )


def import_everything() -> None:
    """A first, tiny load, so that importing is not measured."""
    from unlearn_suite.testing.tiny import save_tiny

    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        transformers.AutoModelForCausalLM.from_pretrained(folder)
        models.load_part({"path": folder}, torch.float32, "cpu", lambda shape: needed_parameters(shape, NOTHING))


NOTHING = Requirements((), reads=0)


def _bytes_read() -> int:
    """Bytes this process got by read calls (Linux; mapped pages, which `from_pretrained` uses, do not count)."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except OSError:
        return 0


def measure(args: argparse.Namespace, name: str, depth: int) -> dict[str, Any]:
    command = [sys.executable, __file__, args.model, "--dtype", args.dtype, "--device", args.device]
    command += ["--depth", str(depth), "--worker", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(args: argparse.Namespace) -> None:
    files = weight_files(Path(args.model))
    for file in files:
        with file.open("rb") as opened:
            while opened.read(MB):
                pass
    config = transformers.AutoConfig.from_pretrained(args.model)
    blocks = config.num_hidden_layers
    depths = sorted({d for d in args.depths if d < blocks})
    size = sum(file.stat().st_size for file in files)
    print(
        f"{Path(args.model).name}: {blocks} blocks, {len(files)} files, {size / MB:.0f} MB; in memory as {args.dtype} "
        f"on {args.device}; 1 thread, torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print(
        "| loaded | parameters (M) | bytes read (MB) | seconds | CPU seconds | memory added (MB) | CPU time | memory |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    whole = measure(args, "plain", 0)
    _row("`from_pretrained`, all", whole, whole, mapped=True)
    for depth in depths:
        _row(f"blocks 0 to {depth}", measure(args, "suite", depth), whole)


def _row(label: str, found: dict[str, Any], whole: dict[str, Any], mapped: bool = False) -> None:
    read = "mapped" if mapped else f"{found['read'] / MB:.0f}"
    shares = [f"{found[key] / whole[key]:.2f}x" for key in ("cpu", "added")]
    times = f"{found['seconds']:.2f} | {found['cpu']:.2f}"
    numbers = f"{found['values'] / 1e6:.0f} | {read} | {times} | {found['added'] / MB:.0f}"
    print(f"| {label} | {numbers} | {' | '.join(shares)} |", flush=True)


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("model", nargs="?", help="folder of a causal language model")
    made.add_argument("--synthetic", type=float, metavar="GB", help="make a random model of this size instead")
    made.add_argument("--dtype", choices=DTYPES, default="bf16")
    made.add_argument("--device", default="cpu")
    made.add_argument("--depths", type=int, nargs="+", default=[3, 7, 15])
    made.add_argument("--depth", type=int, default=0, help=argparse.SUPPRESS)
    made.add_argument("--worker", choices=("plain", "suite"), help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.worker:
        worker(args)
    elif args.synthetic:
        with tempfile.TemporaryDirectory() as folder:
            args.model = str(synthetic(Path(folder) / f"random-{args.synthetic:g}GB", args.synthetic))
            table(args)
    elif args.model:
        table(args)
    else:
        made.error("give a model, or --synthetic GB")


if __name__ == "__main__":
    main()
