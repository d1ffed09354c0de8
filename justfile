# Serve on 127.0.0.1:8080 with a SQLite file
run *args:
    cargo run -- serve {{args}}

# Let a simulated crowd buy tickets, then keep serving
demo *args:
    cargo run --release -- demo {{args}}

# Run every test
test *args:
    cargo test --workspace {{args}}

# Kill the node, its database and the wire between them 100 times each, under load
crash *args:
    FRONTROW_CRASH_KILLS=${FRONTROW_CRASH_KILLS:-100} cargo test --workspace --test crash -- --test-threads 1 {{args}}

# Check the format, lints and documentation
lint:
    cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

# Run many random histories against the reference model: `just model 2000`
model cases='1000' seed=`date +%s`:
    FRONTROW_MODEL_CASES={{cases}} FRONTROW_MODEL_SEED={{seed}} cargo test -p frontrow-model --test random -- model_does --nocapture

# Format the code
fmt:
    cargo fmt --all

# Check the licences and sources of the dependencies, and that each is used. Advisories are not checked: they need a download
deny:
    .ci/dependencies

# Do all that the continuous integration does
ci:
    bash .ci/run

# Simulate nodes and buyers while everything goes wrong, with ever new seeds until stopped: `just soak --seed 7 --trace` replays one
soak *args:
    cargo run --release -p frontrow-sim -- {{args}}

# Write the OpenAPI document
openapi:
    cargo run -q -- openapi > target/openapi.json && mv target/openapi.json docs/openapi.json

# Measure everything against itself and its databases: `just bench --only P1,P4 --rounds 3 --seconds 3`
bench *args:
    cargo build --release -p frontrow -p frontrow-bench && target/release/frontrow-bench {{args}}

# Measure ten times capacity: what is accepted, what is refused and how soon, and the time after
storm *args:
    cargo build --release -p frontrow -p frontrow-bench && target/release/frontrow-bench --only storm --rounds 1 --json target/storm.json {{args}}

# Count the instructions of the hot pure functions; fails above their limits. Needs valgrind
bench-instructions:
    cargo install -q --locked --root target/tools gungraun-runner --version =0.20.0
    GUNGRAUN_RUNNER="$PWD/target/tools/bin/gungraun-runner" cargo bench -p frontrow-bench --bench instructions

# Forge a million tokens, none of which may be accepted. FRONTROW_FORGE_SEED forges others
forge:
    FRONTROW_FORGE_MUTATIONS=1000000 cargo test -p frontrow-infra --test forge no_forgery_is_accepted -- --nocapture

# Send random requests to the server that ships, and compare each answer with its OpenAPI document. FRONTROW_FUZZ_SEED begins elsewhere
fuzz cases='20000':
    cargo build --release -p frontrow && .ci/fuzz {{cases}}
