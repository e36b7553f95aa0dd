//go:build !race

// Package race reports whether the race detector is on. It slows tests down and empties
// sync.Pool at random, so tests cannot count allocations with it.
package race

// Enabled says that the race detector is on.
const Enabled = false
