//go:build !race

// Package race tells whether the race detector is on: it slows tests down, and
// empties sync.Pool at random, so that allocations cannot be counted; and under it,
// memory that is given back is spoiled.
package race

// Enabled says that the race detector is on.
const Enabled = false
