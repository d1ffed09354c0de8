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

# Format the code
fmt:
    cargo fmt --all

# Check the licences and sources of the dependencies
deny:
    cargo deny check licenses bans sources

# Do all that the continuous integration does
ci:
    bash .ci/run

# Write the OpenAPI document
openapi:
    cargo run -q -- openapi > target/openapi.json && mv target/openapi.json docs/openapi.json

# Measure everything against itself and its databases: `just bench --only P1,P4 --rounds 3 --seconds 3`
bench *args:
    cargo build --release -p frontrow -p frontrow-bench && target/release/frontrow-bench {{args}}

# Count the instructions of the hot pure functions; fails above their limits. Needs valgrind
bench-instructions:
    cargo install -q --locked --root target/tools gungraun-runner --version =0.20.0
    GUNGRAUN_RUNNER="$PWD/target/tools/bin/gungraun-runner" cargo bench -p frontrow-bench --bench instructions
