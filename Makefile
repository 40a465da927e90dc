PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup demo test lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --editable ".[benchmarks,dev,train]"
	touch $@

demo: setup
	$(BIN)/proxyformer segment src/proxyformer_hf/assets/demo.mp4 \
		"the woman in the orange suit" "the cup" "a bicycle" --min-score 0.5 \
		--output outputs/demo.mp4

test: setup
	PYTHON=$(BIN)/python scripts/fetch_transformers_tests.sh
	HF_HUB_OFFLINE=1 $(BIN)/pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf outputs build
