#!/usr/bin/env bash
# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
#
# Lays out transformers' own test mixins (ModelTesterMixin and so on), which its wheel leaves out,
# from the source distribution of the installed version, in .transformers_tests/ at the root of the
# repository. Does nothing if that version is there. usage: [PYTHON=python] fetch_transformers_tests.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
tree=$root/.transformers_tests

version=$("$python" -c 'from importlib.metadata import version; print(version("transformers"))')
if [ "$(cat "$tree/VERSION" 2>/dev/null)" = "$version" ]; then
    exit 0
fi

# Built aside on the same disk, so that only a finished tree ever gets the final name.
work=$(mktemp -d "$root/.transformers_tests.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --quiet --no-deps --no-binary transformers --dest "$work" "transformers==$version"
tar -xzf "$work/transformers-$version.tar.gz" -C "$work"

new=$work/tree
mkdir -p "$new"/tests/{exporters,generation,utils} "$new/utils"
cp "$work/transformers-$version"/tests/*.py "$new/tests/"
touch "$new/tests/__init__.py" "$new"/tests/{exporters,generation,utils}/__init__.py
# The mixins import these from folders that the source distribution leaves out as well.
echo 'class ExportTesterMixin: ...' > "$new/tests/exporters/test_export.py"
echo 'class GenerationTesterMixin: ...' > "$new/tests/generation/test_utils.py"
echo 'def url_to_local_path(url, *args, **kwargs): return url' > "$new/utils/fetch_hub_objects_for_ci.py"
cat > "$new/tests/utils/test_configuration_utils.py" <<'STUB'
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["X"],
    "id2label": {0: "a"},
    "label2id": {"a": 0},
    "problem_type": "regression",
}
STUB
echo "$version" > "$new/VERSION"
rm -rf "$tree"
mv "$new" "$tree"
