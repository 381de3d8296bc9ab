# make build   the release binary
# make check   format, lints, licences and the tests that need no engine
# make test    check, and the tests on a real engine (started if none answers: Debian, root)
# make faults-fake  the crash harness on fakes, at every point
# make demo    the main job, on a small project, under load
# make bench   against Docker Compose v2, in the same run

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: build check fmt lint deny unit engine-tests test faults-fake demo bench

# Cargo writes to target/TRIPLE since .cargo/config.toml names a target.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET_DIR)/$(HOST)/release

# Packages whose tests talk to an engine. Each test says so and passes where none answers.
ENGINE_PACKAGES := shiplap-engine shiplap-scenarios
# Two at a time: each proxies a few hundred requests per second in a build for debugging.
THREADS ?= 2

ifneq ($(shell command -v cargo-nextest),)
RUN_TESTS := cargo nextest run --no-fail-fast
RUN_SERIAL := $(RUN_TESTS) --test-threads $(THREADS)
AFTER :=
else
RUN_TESTS := cargo test --no-fail-fast
RUN_SERIAL := $(RUN_TESTS)
AFTER := -- --test-threads $(THREADS)
endif

build:
	cargo build --release --locked -p shiplap
	@echo "built $(RELEASE)/shiplap"

check: fmt lint deny unit

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The advisory database is not at hand everywhere; licences, bans and sources are.
deny:
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --offline --all-features check licenses bans sources; \
	else \
		echo "skipped: cargo-deny is not installed (cargo install cargo-deny --locked)"; \
	fi

# No engine at this address: what needs one must not be in here.
unit:
	DOCKER_HOST=unix:///nonexistent/docker.sock $(RUN_TESTS) --locked --workspace \
		$(addprefix --exclude ,$(ENGINE_PACKAGES))
	DOCKER_HOST=unix:///nonexistent/docker.sock $(RUN_TESTS) --locked --lib -p shiplap-engine

engine-tests:
	scripts/engine-up
	cargo build --locked -p shiplap -p shiplap-demo-app
	COMPOSE="$$(scripts/compose-peer || true)"; \
	export COMPOSE SHIPLAP_COMPOSE_PEER="$$COMPOSE"; \
	$(RUN_SERIAL) --locked $(addprefix -p ,$(ENGINE_PACKAGES)) $(AFTER)

test: check engine-tests
	@echo "make test: all passed"

# Every point at which a deployer can die, on fakes: no engine, no disk, no waiting.
faults-fake:
	SHIPLAP_FAULTS=all cargo test --locked -p shiplap-execute --test it resuming -- --nocapture

demo:
	scripts/engine-up
	cargo build --release --locked -p shiplap -p shiplap-demo -p shiplap-demo-app
	$(RELEASE)/demo --shiplap $(RELEASE)/shiplap --app $(RELEASE)/shiplap-demo-app $(DEMO_ARGS)

bench:
	scripts/engine-up
	cargo build --release --locked -p shiplap -p shiplap-demo-app -p shiplap-bench
	COMPOSE="$$(scripts/compose-peer || true)" $(RELEASE)/shiplap-bench $(BENCH_ARGS)
