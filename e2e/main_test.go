// Package e2e_test runs the built binary against Google's Pub/Sub emulator, or the
// embedded Pub/Sub where the emulator is kinder than the service, and a SAMS and a
// gateway of our own. It knows nothing of the worker but what the
// outside promises: variables, messages, exit statuses, endpoints.
package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	_ "github.com/sourcegraph/telemetry-relay/internal/app" // what the binary is made of: a result is not cached beyond a change of it
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

// buildVersion is what the binary under test says of itself.
const buildVersion = "1.2.3-e2e"

// workerBinary is the path of the worker.
var workerBinary string

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// suite builds the binary before the tests, and takes everything down after them
// but before goleak looks.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	flag.Parse()
	// The tests mostly wait, so more of them than there are processors may run.
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		_ = flag.Set("test.parallel", "12") // a flag of the testing package's own
	}
	dir, err := os.MkdirTemp("", "worker-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	workerBinary = filepath.Join(dir, "worker")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-X main.rejectSpan=2s -X main.pullWait=1s -X main.buildVersion="+buildVersion, "-o", workerBinary, "../cmd/worker")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "build the worker: %v\n", err)
		return 1
	}
	defer emulator.StopShared()
	defer connections.close()
	return s.m.Run()
}
