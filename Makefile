.PHONY: run cluster node test e2e fuzz lint bench chaos lock

run: ## start the service on the embedded cluster, send 004's example, show what becomes of it; AMQP=1: by RabbitMQ
	@scripts/setup
	@[ -z "$(AMQP)" ] || scripts/setup-broker
	@AMQP=$(AMQP) .venv/bin/python scripts/demo.py

cluster: ## a real Kubernetes API on loopback, for a look by hand: prints its KUBECONFIG, stays until Ctrl-C
	@scripts/setup
	@scripts/build-control-plane
	@.venv/bin/python scripts/control_plane.py

node: ## a real node, registry, Git server, RabbitMQ and the service, for a look by hand until Ctrl-C; needs root
	@scripts/setup
	@scripts/setup-chain
	@.venv/bin/python scripts/whole_chain.py

test: ## everything, on the real components too
	@scripts/setup
	@scripts/test

e2e: ## the whole chain on a real node: event, RabbitMQ, Job, kubelet, image in a registry; needs root
	@scripts/setup
	@scripts/e2e

fuzz: ## 10^6 requests that are nearly right through the parser, 2 x 10^4 of them through the port; fifteen minutes
	@scripts/setup
	@scripts/fuzz

lint: ## formatter, linter, type checker, import checker
	@scripts/setup
	@scripts/lint

bench: ## the ratios of benchmarks/README.md
	@scripts/setup
	@scripts/bench

chaos: ## a long random history of three replicas: make chaos MINUTES=30
	@scripts/setup
	@scripts/chaos

lock: ## resolve the dependencies anew
	@scripts/setup
	@scripts/lock
