// Package testenv has what the tests of several packages share: what they need of the
// machine, the worker's binary, buffers and waits. Only tests import it.
package testenv

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// Patience bounds a wait for something that must happen. Nothing waits that long in a good
// run, on a machine that is busy with other tests either.
const Patience = 2 * time.Minute

// poll is the interval of polling.
const poll = 10 * time.Millisecond

// RunAtOnce lets n parallel tests of a package run at once, rather than as many as there are
// processors, because its tests mostly wait. The flag -parallel still decides if it is given.
// TestMain calls it after flag.Parse.
func RunAtOnce(n string) {
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(n) // it is a number
	}
}

// Eventually polls until something is the case, and ends the test after Patience.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	if !Within(t.Context(), Patience, is) {
		t.Fatalf("still not after %v: %s", Patience, what)
	}
}

// Within polls until something is the case, and reports whether it was so within d and before
// ctx has ended.
func Within(ctx context.Context, d time.Duration, is func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			return is()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// The ports that FreeAddr chooses from. Systems give higher ones to listeners that ask for
// any port, and to connections: one of those could be taken before the caller uses it.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

// FreeAddr returns an unused host:port.
func FreeAddr() (string, error) {
	for tries := 0; ; tries++ {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		switch {
		case err == nil:
			return addr, l.Close()
		case tries == 100:
			return "", err
		}
	}
}
