# 'make help' lists the targets. Another PostgreSQL: make PG_CONFIG=/path/to/pg_config TARGET
SHELL := /bin/bash
.DEFAULT_GOAL := help

ifdef PG_CONFIG
export PG_CONFIG
endif
export COUNT DATA METRIC ROWS CLIENTS SYSTEMS SECONDS_PER_POINT ROUNDS EF OUT MORE ONLY

.PHONY: help setup build install demo emulators psql stop test lint unit server regress isolation tap crash bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, cargo-pgrx (asks sudo when not root)
	@scripts/setup.sh

build: setup ## compile the extension for release
	@scripts/install.sh build

install: setup ## compile for release and install into PostgreSQL (PG_CONFIG=... chooses which)
	@scripts/install.sh install

demo: install ## semantic search on real texts in a private throw-away server
	@scripts/demo.sh

emulators: ## Walrus (port 31415), an S5 path service (31416) and an S5 portal (31417) on this machine, until Ctrl-C
	@cargo run --quiet --release -p emulators -- all --port 31415

psql: ## connect to the demo server
	@scripts/cluster.sh psql demo -d demo

stop: ## stop every private server of this checkout
	@scripts/cluster.sh stop

test: setup ## every check and test; the last line sums up
	@scripts/test.sh

lint: setup ## formatting, clippy with warnings denied, shellcheck if present
	@scripts/test.sh fmt clippy shell

unit: setup ## tests of the crates that need no server
	@scripts/test.sh unit

server: setup ## tests that run inside a server (cargo pgrx test), then the release build again
	@scripts/test.sh server install

regress: install ## SQL regression tests: pg_test/regress
	@scripts/test.sh regress

isolation: install ## tests of concurrent sessions: pg_test/isolation
	@scripts/test.sh isolation

tap: install ## tests with servers of their own (crash, standby): pg_test/t
	@scripts/test.sh tap

crash: install ## kill -9 the server under load, 50 times (COUNT=...)
	@scripts/test.sh crash

bench: install ## measure against pgvector (DATA= METRIC= ROWS= CLIENTS= SECONDS_PER_POINT=)
	@scripts/bench.sh

clean: ## stop the private servers, remove them and everything built
	@scripts/clean.sh
