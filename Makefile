# Everything starts here. Each target does its own set-up; a second run installs nothing.

# nginx, tcpdump and others are where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo netlab netlab-down netlab-status test test-quick test-smoke pages soak soak-handover bare lint format clean root

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: root setup ## Run the main job in namespaces of its own and show it in a table (root)
	@.venv/bin/python -m examples.demo

netlab: root setup ## Bring up the reference network: two sites that delegate prefixes by type (root)
	@.venv/bin/python -m tests.netlab up

netlab-down: root ## Remove it, killed or not; NUMBER=N: what a killed test run has left (root)
	@.venv/bin/python -m tests.netlab $(if $(NUMBER),sweep $(NUMBER),down)

netlab-status: root ## Show it, and what it delegates now (root)
	@.venv/bin/python -m tests.netlab status

test: root setup lint ## Run all checks and tests, WORKERS=3 at a time (root)
	.venv/bin/pytest --numprocesses $(or $(WORKERS),3) --dist loadfile

test-quick: setup lint ## Run what needs no root: static checks, unit and property tests
	.venv/bin/pytest --numprocesses $(or $(WORKERS),2) tests/unit tests/property

test-smoke: root setup ## Run one family and one case of each technique (root; minutes)
	.venv/bin/pytest --numprocesses $(or $(WORKERS),3) --dist loadfile --smoke tests/rfc8653

pages: root setup ## Run all tests and write the pages that they make: docs/bypass.md, docs/conformance.md
	.venv/bin/pytest --numprocesses $(or $(WORKERS),3) --dist loadfile --write-pages

soak: root setup ## Kill the agent under thousands of sockets; DURATION=600 (seconds), SEED=N (root)
	@.venv/bin/python -m tests.soak --seconds $(or $(DURATION),600) $(if $(SEED),--seed $(SEED))

soak-handover: root setup ## Move the host to and fro, its agent killed in a third; HANDOVERS=1000, SEED=N (root)
	@.venv/bin/python -m tests.soak.handover --handovers $(or $(HANDOVERS),1000) $(if $(SEED),--seed $(SEED))

bare: root ## Follow the README on a bare Debian 12 and 13, or SUITE=trixie (root; minutes)
	@scripts/bare $(SUITE)

lint: setup ## Run the static checks
	@scripts/lint

format: setup ## Format Python and C sources in place
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix
	@find bpf examples tests -name include -prune -o -name '*.[ch]' -print | xargs clang-format -i

setup: ## Install what is missing: Debian packages, the environment in .venv
	@scripts/setup

clean: ## Remove the environment and all caches
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

root:
	@test "$$(id -u)" = 0 || { \
		echo 'This loads eBPF programs and makes network namespaces: run it as root,' \
			'e.g. sudo make $(MAKECMDGOALS)' >&2; exit 1; }
