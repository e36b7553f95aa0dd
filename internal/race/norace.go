//go:build !race

// Package race tells tests whether the race detector is on: it slows them down,
// and empties sync.Pool at random, so that allocations cannot be counted.
package race

// Enabled says that the race detector is on.
const Enabled = false
