// Package chaos_test runs the built binary for longer than the end-to-end tests: several
// workers on the Pub/Sub emulator, with random faults around them. An independent ledger
// shows whether an event was lost.
package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	_ "github.com/sourcegraph/telemetry-relay/internal/app" // the binary's code, so that a cached result is not used after a change
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

var (
	chaosLength = flag.Duration("chaos.length", 20*time.Second, "how long faults happen")
	chaosSeed   = flag.Uint64("chaos.seed", 0, "what the faults are drawn from; 0 takes a new one")
	chaosFreeze = flag.Duration("chaos.freeze", 8*time.Second, "how long the emulator is frozen")
	chaosRace   = flag.Bool("chaos.race", false, "build the worker with the race detector")
	soakLength  = flag.Duration("soak.length", 0, "how long the soak test runs; 0 skips it")
)

// buildVersion is the version of the binary under test.
const buildVersion = "1.2.3-chaos"

// workerBinary is the path of the worker.
var workerBinary string

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// suite builds the binary before the tests, and cleans up before goleak checks.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	flag.Parse()
	defer emulator.StopShared()
	if testing.Short() {
		return s.m.Run()
	}
	path, remove, err := testenv.Build{Version: buildVersion, RejectSpan: "10s", Race: *chaosRace}.Worker(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	workerBinary = path
	return s.m.Run()
}
