# What is done often. Everything else: tools/README.md, bench/README.md, test/README.md.
.DEFAULT_GOAL := help
.PHONY: help build test test-short lint generate fuzz bench sim ci

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

build: ## the worker, into bin/worker
	go build -o bin/worker ./cmd/worker

test: ## all tests; those that need the Pub/Sub emulator are skipped without it
	go test ./...

test-short: ## the tests that need no program of their own: a minute
	go test -short ./...

lint: ## golangci-lint; the first run compiles it
	.ci/run lint

generate: ## what is generated: the bindings of the gateway's API
	go generate ./...

fuzz: ## each fuzz target for FUZZ_TIME (5s)
	.ci/run fuzz

bench: ## what an event costs
	go run ./bench

sim: ## 10,000 seeds of faults in fake time
	go test ./test/sim -run TestSeeds -sim.seed=0 -sim.seeds=10000 -timeout 30m -v

ci: ## everything that must hold before a change lands
	.ci/run
