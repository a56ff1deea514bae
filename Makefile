.PHONY: run test lint bench lock

run: ## start the service on the embedded cluster, send 004's example, show what becomes of it
	@scripts/setup
	@.venv/bin/python scripts/demo.py

test: ## everything, on the real components too
	@scripts/setup
	@scripts/test

lint: ## formatter, linter, type checker, import checker
	@scripts/setup
	@scripts/lint

bench: ## the ratios of benchmarks/README.md
	@scripts/setup
	@scripts/bench

lock: ## resolve the dependencies anew
	@scripts/setup
	@scripts/lock
