# make build   the release binary
# make check   format, lints, licences and the tests that need no engine (those of databases start
#              a PostgreSQL of their own where its programs are installed)
# make test    check, and the tests on a real engine (started if none answers: Debian, root)
# make test-faults   kill it anywhere, break engine and edge: everything, under 20 minutes (UPDATE=1
#              writes docs/faults.md)
# make faults-fake   the crash harness on fakes, at every point
# make fuzz-api   schemathesis on the API's own page, against a server over fakes (optional: pip install
#              schemathesis)
# make demo    the main job, on a small project, under load
# make bench   against Docker Compose v2, in the same run

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: build check fmt lint deny unit engine-tests postgres test test-faults faults-fake fuzz-api demo bench

# Cargo writes to target/TRIPLE since .cargo/config.toml names a target.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET_DIR)/$(HOST)/release

# Packages whose tests talk to an engine. Each test says so and passes where none answers.
ENGINE_PACKAGES := shiplap-engine shiplap-scenarios shiplap-faults
# Of the fault suite `make test` runs a few, at a few points each; `make test-faults` runs it all.
FAULT_SAMPLE := kill::start_first_update kill::stop_first_update_with_hold kill::rollback \
	calls::status_500_to_any_one_call edge::worker_is_killed engine::disk_is_full lease:: \
	ledger:: signals::interrupted_once
# Two at a time: each proxies a few hundred requests per second in a build for debugging.
THREADS ?= 2
# Those of the fault suite wait for most of the time: four keep two cores busy.
FAULT_THREADS ?= 4

ifneq ($(shell command -v cargo-nextest),)
RUN_TESTS := cargo nextest run --no-fail-fast
NOTHING :=
SAMPLE_FILTER := $(subst $(NOTHING) $(NOTHING), or ,$(patsubst %,test(%),$(FAULT_SAMPLE)))
RUN_ENGINE_TESTS := $(RUN_TESTS) --test-threads $(THREADS) --locked \
	$(addprefix -p ,$(ENGINE_PACKAGES)) -E 'not package(shiplap-faults) or $(SAMPLE_FILTER)'
FAULT_TESTS := $(RUN_TESTS) --locked --profile faults --test-threads $(FAULT_THREADS) -p shiplap-faults
else
RUN_TESTS := cargo test --no-fail-fast
RUN_ENGINE_TESTS := $(RUN_TESTS) --locked -p shiplap-engine -p shiplap-scenarios \
	-- --test-threads $(THREADS) && \
	$(RUN_TESTS) --locked -p shiplap-faults -- --test-threads $(THREADS) $(FAULT_SAMPLE)
FAULT_TESTS := $(RUN_TESTS) --locked -p shiplap-faults -- --test-threads $(FAULT_THREADS)
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
	$(RUN_ENGINE_TESTS)

# PostgreSQL's programs, for the tests of crates/data and crates/ledger; without them those say so and pass.
postgres:
	scripts/postgres-up || true

test: postgres check engine-tests
	@echo "make test: all passed"

test-faults: export SHIPLAP_FAULTS := all
test-faults:
	scripts/engine-up
	cargo build --locked -p shiplap -p shiplap-demo-app -p shiplap-faults
	rm -f $(TARGET_DIR)/$(HOST)/debug/fault-observations.jsonl
	failed=0; $(FAULT_TESTS) || failed=$$?; \
	UPDATE=$(UPDATE) $(TARGET_DIR)/$(HOST)/debug/fault-table; exit $$failed
# Every point at which a deployer can die, on fakes: no engine, no disk, no waiting.
faults-fake:
	SHIPLAP_FAULTS=all cargo test --locked -p shiplap-execute --test it resuming -- --nocapture

# Requests made from docs/openapi.json: every answer is one that the page describes, and none is our error.
fuzz-api:
	cargo build --locked -p shiplap-server --example fifty
	scripts/fuzz-api $(TARGET_DIR)/$(HOST)/debug/examples/fifty

demo:
	scripts/engine-up
	cargo build --release --locked -p shiplap -p shiplap-demo -p shiplap-demo-app
	$(RELEASE)/demo --shiplap $(RELEASE)/shiplap --app $(RELEASE)/shiplap-demo-app $(DEMO_ARGS)

bench:
	scripts/engine-up
	cargo build --release --locked -p shiplap -p shiplap-demo-app -p shiplap-bench
	COMPOSE="$$(scripts/compose-peer || true)" $(RELEASE)/shiplap-bench $(BENCH_ARGS)
