"""The GPU kernels compile to machine code, which Triton does without a GPU.

What runs in Triton's interpreter need not compile: types and shapes are checked only here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMPILE = """
import sys
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pipeline.encoders.unimol.engine import cuda

name, capability = sys.argv[1], int(sys.argv[2])
short = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
kernels = cuda.CudaKernels({v: k for k, v in short.items()}[name], 64)


def compiled(kernel, signature, constants, warps):
    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options={"num_warps": warps})
    assert made.asm["cubin"]


def pointers(types):
    return {argument: f"*{kind}" for argument, kind in types.items()}


for keys in (32, 256):
    queries, warps = cuda.tile(keys, kernels.dtype)
    types = {"qkv": name, "pair": short[kernels.pair_dtype], "mixed": name}
    sizes = {"H": 64, "K": 8, "K_PAD": 16, "QUERIES": queries, "KEYS": keys}
    compiled(cuda._attend_kernel, {**pointers(types), "N": "i32"}, sizes, warps)
types = {"x": "fp32", "update": name, "normed": name, "weight": "fp32", "bias": "fp32"}
for add in (False, True):
    given = {**pointers(types), "eps": "fp32", "D": "i32"}
    compiled(cuda._norm_kernel, given, {"ADD": add, "COLUMNS": 512}, 4)
types = dict.fromkeys(("scale", "shift", "distance", "means", "exponents"), "fp32")
given = {**pointers({**types, "channels": name}), "P": "i32", "G": "i32"}
compiled(cuda._gaussian_kernel, given, {"PAIRS": 32, "CHANNELS": 128}, 4)
print("compiled")
"""


@pytest.mark.parametrize("precision, capability", [("fp32", 90), ("fp16", 80), ("bf16", 90)])
def test_every_kernel_compiles_for_ampere_or_hopper(precision, capability, tmp_path):
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, precision, str(capability)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "compiled\n", done.stderr
