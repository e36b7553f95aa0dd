// Package e2e_test runs the built binary against Google's Pub/Sub emulator, or the embedded
// Pub/Sub where the emulator is less strict than the service, and a SAMS and a gateway of
// our own. It uses only what the worker promises to the outside: variables, messages, exit
// statuses, endpoints.
package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	_ "github.com/sourcegraph/telemetry-relay/internal/app" // the binary's code, so that a cached result is not used after a change
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// buildVersion is the version of the binary under test.
const buildVersion = "1.2.3-e2e"

// workerBinary is the path of the worker.
var workerBinary string

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// suite builds the binary before the tests, and cleans up before goleak checks.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	flag.Parse()
	if testing.Short() {
		// The worker is built without the race detector, and the servers around it have
		// tests of their own.
		fmt.Println("The end-to-end tests take minutes, and are left out with -short.")
		return 0
	}
	testenv.RunAtOnce("12")
	path, remove, err := testenv.Build{Version: buildVersion, RejectSpan: "2s", PullWait: "1s"}.Worker(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	workerBinary = path
	defer emulator.StopShared()
	defer connections.close()
	return s.m.Run()
}
