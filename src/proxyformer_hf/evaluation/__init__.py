# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
