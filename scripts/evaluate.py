# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""`proxyformer evaluate` as a script, for `accelerate launch scripts/evaluate.py NAME DATA_DIR`."""

import typer

from proxyformer_hf.cli import evaluate

if __name__ == "__main__":
    typer.run(evaluate)
