// Package live_test asks a Pub/Sub what it does in situations that the worker and its
// embedded server rest on, and prints what is as docs/pubsub.md says and what differs. It is for
// a real project; docs/live.md says how to run it. Without one it asks the embedded
// server and Google's emulator, so that the test itself is tested.
package live_test

import (
	"context"
	"flag"
	"sync"
	"testing"

	"go.uber.org/goleak"

	_ "github.com/sourcegraph/telemetry-relay/internal/app" // what the binary is made of: a result is not cached beyond a change of it
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
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
	testenv.RunAtOnce("8")
	defer emulator.StopShared()
	defer worker.remove()
	return s.m.Run()
}

// worker is the binary under test.
var worker binary

// binary is built when it is first asked for.
type binary struct {
	once   sync.Once
	file   string
	delete func()
	err    error
}

// path returns where the worker is.
func (b *binary) path(ctx context.Context) (string, error) {
	if *flagWorker != "" {
		return *flagWorker, nil
	}
	b.once.Do(func() { b.file, b.delete, b.err = testenv.Build{}.Worker(ctx) })
	return b.file, b.err
}

// remove removes what path has made.
func (b *binary) remove() {
	if b.delete != nil {
		b.delete()
	}
}
