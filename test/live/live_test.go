package live_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

// rows are all situations.
var rows = slices.Concat(streamRows, leaseRows, messageRows, workerRows)

// TestPubSubBehavesAsAssumed asks a real Pub/Sub, or the one that the flags name.
func TestPubSubBehavesAsAssumed(t *testing.T) {
	tg := flagTarget(t)
	ctx := untilStopped(t, tg.needs())
	out := terminal(t)
	rep, err := run(ctx, tg, filterRows(rows, *flagRow), out)
	if err != nil {
		t.Error(err)
	}
	fmt.Fprintf(out, "\n%s\n", table(rep.results))
	rep.verify(t)
}

// TestEmbeddedServerAndEmulatorBehaveAsAssumed asks the embedded server and the emulator,
// all at once.
func TestEmbeddedServerAndEmulatorBehaveAsAssumed(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs programs of its own")
	}
	ofItself(t)
	shortly := pubsubserver.Options{StreamIdle: 5 * time.Second, DeliveryLease: 20 * time.Second}
	for name, start := range map[string]func(t *testing.T) target{
		"embedded": func(t *testing.T) target {
			return localTarget(embedded, startEmbedded(t, pubsubserver.Options{}).Addr())
		},
		"embedded with short intervals": func(t *testing.T) target {
			tg := localTarget(embedded, startEmbedded(t, shortly).Addr())
			tg.hurried, tg.streamIdle, tg.firstLease = true, shortly.StreamIdle, shortly.DeliveryLease
			return tg
		},
		"emulator": func(t *testing.T) target { return localTarget(emulated, emulator.Shared(t).Host) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rep, err := run(t.Context(), start(t), rows, testLog{t})
			if err != nil {
				t.Error(err)
			}
			t.Logf("\n%s", table(rep.results))
			rep.verify(t)
		})
	}
}

// ofItself makes a test of this test parallel, and skips it when the flags ask for
// TestPubSubBehavesAsAssumed: then nothing else is wanted.
func ofItself(t *testing.T) {
	t.Helper()
	if *flagProject != "" || *flagEmulator != "" {
		t.Skip("only TestPubSubBehavesAsAssumed runs with -live.project or -live.emulator")
	}
	t.Parallel()
}

func startEmbedded(t *testing.T, opts pubsubserver.Options) *pubsubserver.Server {
	t.Helper()
	// Settings are kept for show, such as that order is wanted.
	opts.KeepSettings = true
	s, err := pubsubserver.Start(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// testLog has a test log what is written.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}
