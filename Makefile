# Two commands do all set-up: `make demo` and `make test`. The others are CI's steps.

SHELL := /bin/bash
KAFKA_LIBS := target/kafka/libs
# One profile for demo and tests, and fault switches compiled into test builds alone.
TEST_FLAGS := --workspace --features callbackd/faults

.PHONY: help demo test lint fmt clippy docs deny kafka system-packages bench clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: system-packages ## Watch callbacks arrive, fail, retry and recover; needs nothing else
	@test -x target/debug/callbackd || echo "The first build takes about 4 minutes on 2 cores; later ones take seconds."
	cargo build --quiet --locked --bin callbackd
	@target/debug/callbackd demo $(DEMO)

test: system-packages kafka ## Everything that is tested, with a real Kafka
	CALLBACKD_TEST_KAFKA_LIBS=$(CURDIR)/$(KAFKA_LIBS) cargo test --locked $(TEST_FLAGS)
	python3 sdk/testdata/vectors.py --check sdk/testdata/vectors.json

lint: system-packages fmt clippy docs deny ## Format, lints, docs, licences

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --locked $(TEST_FLAGS) --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

deny:
	@command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny@0.18.9
	cargo deny --locked check licenses bans sources

kafka: $(KAFKA_LIBS)/.done

$(KAFKA_LIBS)/.done: bench/kafka/pom.xml
	@command -v java >/dev/null || { echo "make test needs Java (apt install default-jre-headless)"; exit 1; }
	@command -v mvn >/dev/null || $(MAKE) --no-print-directory apt-packages APT=maven
	mvn -q -f bench/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(KAFKA_LIBS)
	@touch $@

# What librdkafka needs: OpenSSL and zlib with their headers, and a C++ compiler.
system-packages:
	@missing=""; \
	for header in openssl/ssl.h zlib.h; do \
	  echo "#include <$$header>" | cc -E - >/dev/null 2>&1 || missing="$$missing $$header"; done; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	test -z "$$missing" || { echo "Installing what is missing:$$missing"; \
	  $(MAKE) --no-print-directory apt-packages APT="libssl-dev zlib1g-dev g++ pkg-config"; }

.PHONY: apt-packages
apt-packages:
	@if [ "$$(id -u)" != 0 ]; then echo "As root: apt-get install $(APT)"; exit 1; fi
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(APT) >/dev/null

bench: ## The rough figure of speed: callbackd over a bare signed POST loop, in one run
	cargo run --quiet --locked --release -p callbackd-bench --bin rate

clean:
	cargo clean
