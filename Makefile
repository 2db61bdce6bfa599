# Each target is one readable command. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

LAB := scripts/with-environment lab
# The longest first; two run at once. The cluster has both cores to itself: thirteen nodes fill them.
SCENARIOS := postgres celery rabbitmq keepalived haproxy gunicorn etcd pki base

.PHONY: help
help: ## List what can be typed
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: up
up: ## The whole lab cluster, serving; again: repairs it
	@scripts/lab up

.PHONY: down
down: ## Remove the lab and everything it made
	@scripts/lab down

.PHONY: status
status: ## One screen: addresses, pools, PostgreSQL, releases, what is wrong
	@$(LAB) fab status

.PHONY: test
test: check scenarios ## Prove everything: check, each role's scenario, the cluster end to end

.PHONY: check
check: env image ## Lint, unit, policy, rendered configurations
	@scripts/check

.PHONY: scenarios
scenarios: env image
	@scripts/scenarios cluster
	scripts/scenarios $(SCENARIOS)

.PHONY: scenario
scenario: env image ## One Molecule scenario: make scenario NAME=haproxy
	@scripts/molecule "$(NAME)" test

.PHONY: infra
infra: env ## The infra suite against the lab that is up
	@$(LAB) pytest tests/infra

.PHONY: prove
prove: env image ## The long forms of the proofs: more rounds, and the cluster under `linear`
	@export BULKHEAD_PROOF=long
	ANSIBLE_STRATEGY=linear scripts/scenarios cluster
	scripts/scenarios $(SCENARIOS)

.PHONY: docs
docs: env ## Write the references again from their sources
	@.venv/bin/python scripts/role-reference
	.venv/bin/python scripts/application_reference.py

.PHONY: env
env:
	@scripts/host-packages python
	scripts/python-environment

.PHONY: image
image: env
	@scripts/host-packages
	$(LAB) lab/image/build

.PHONY: lock
lock: env ## Resolve requirements.in into requirements.txt
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --custom-compile-command 'make lock' requirements.in -o requirements.txt

.PHONY: clean
clean: down ## Remove the images and Python environments as well
	@podman images --quiet --filter reference='localhost/bulkhead-*' | sort -u | xargs --no-run-if-empty podman rmi --force
	rm -rf .venv .venv-forge .molecule .ansible
