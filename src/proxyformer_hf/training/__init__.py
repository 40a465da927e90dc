# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Training: the recipe, its data, the optimisation, checkpoints and the loop."""
