// Package live_test asks a Pub/Sub what it does in situations that the worker and its
// embedded server rest on, and prints what is as docs/pubsub.md says and what differs. It is for
// a real project; docs/live.md says how to run it. Without one it asks the embedded
// server and Google's emulator, so that the test itself is tested.
package live_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	_ "github.com/sourcegraph/telemetry-relay/internal/app" // what the binary is made of: a result is not cached beyond a change of it
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

var (
	flagProject  = flag.String("live.project", "", "the Google Cloud `project` in which topics and subscriptions are created; without it nothing real is asked")
	flagRegion   = flag.String("live.region", "", "the `region` whose endpoint is used, such as us-east1")
	flagEndpoint = flag.String("live.endpoint", "", "the `host:port` of the endpoint, instead of the region's")
	flagEmulator = flag.String("live.emulator", "", "the `host:port` of an emulator: without TLS and credentials")
	flagLong     = flag.Bool("live.long", false, "ask for what takes ten minutes, too; with -timeout 30m")
	flagRow      = flag.String("live.row", "", "ask only the situations whose names contain this `text`")
	flagWorker   = flag.String("live.worker", "", "the `file` of the worker that is run; it is built if there is none")
	flagUpdate   = flag.Bool("update", false, "write the table of situations into docs/live.md")
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(suite{m},
		// A dependency of the client starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// suite takes everything down after the tests, but before goleak looks.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	flag.Parse()
	// The tests mostly wait, so more of them than there are processors may run.
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		_ = flag.Set("test.parallel", "8") // a flag of the testing package's own
	}
	defer emulator.StopShared()
	defer worker.remove()
	return s.m.Run()
}

// worker is the binary under test.
var worker binary

// binary is built when it is first asked for.
type binary struct {
	once sync.Once
	dir  string
	err  error
}

// path returns where the worker is.
func (b *binary) path(ctx context.Context) (string, error) {
	if *flagWorker != "" {
		return *flagWorker, nil
	}
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "worker-live-"); b.err != nil {
			return
		}
		build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(b.dir, "worker"), "../../cmd/worker")
		if output, err := build.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build the worker: %w\n%s", err, output)
		}
	})
	return filepath.Join(b.dir, "worker"), b.err
}

// remove removes what path has made.
func (b *binary) remove() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
