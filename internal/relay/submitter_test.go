package relay

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// TestCapacityOutcome is what the end of a stream with ten events says about the capacity.
func TestCapacityOutcome(t *testing.T) {
	failed := func(class submit.Class, code codes.Code) submit.Result {
		return submit.Result{Took: time.Second, Failure: &submit.Failure{Class: class, Code: code}}
	}
	ended := submit.Result{Took: time.Second}
	for _, test := range []struct {
		name     string
		of       submission
		result   submit.Result
		recorded int
		want     limit.Outcome
	}{
		{"all are recorded", submission{}, ended, 10, limit.Answered},
		{"some are recorded", submission{}, ended, 1, limit.Answered},
		{"some suspects are recorded", submission{role: suspected}, ended, 1, limit.Answered},
		{"none is recorded", submission{}, ended, 0, limit.Ignored},
		{"cut off after all are recorded", submission{}, failed(submit.Transient, codes.Unavailable), 10, limit.Answered},
		{"cut off before", submission{}, failed(submit.Transient, codes.Unavailable), 9, limit.Failed},
		{"the gateway has no capacity", submission{}, failed(submit.Transient, codes.ResourceExhausted), 0, limit.Refused},
		{"it takes too long", submission{}, failed(submit.Transient, codes.DeadlineExceeded), 0, limit.Failed},
		{"suspects fail", submission{role: suspected}, failed(submit.Transient, codes.Internal), 0, limit.Ignored},
		{"suspects are refused for lack of capacity", submission{role: suspected}, failed(submit.Transient, codes.ResourceExhausted), 0, limit.Ignored},
		{"what was cut out fails", submission{isolated: true}, failed(submit.Transient, codes.Internal), 0, limit.Ignored},
		{"no token", submission{}, failed(submit.SAMS, codes.Unavailable), 0, limit.Ignored},
		{"the token is refused", submission{}, failed(submit.Credentials, codes.Unauthenticated), 0, limit.Ignored},
		{"the events are refused", submission{}, failed(submit.BatchRefused, codes.InvalidArgument), 0, limit.Ignored},
		{"the identity is refused", submission{}, failed(submit.IdentityRefused, codes.InvalidArgument), 0, limit.Ignored},
		{"nothing was sent", submission{}, submit.Result{Failure: submit.NotSent(nil)}, 0, limit.Ignored},
	} {
		test.of.size.events = 10
		if got := capacityOutcome(&test.of, test.result, test.recorded); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestLimitAndConnectionsFollowTheOptions(t *testing.T) {
	for _, test := range []struct {
		name                    string
		opts                    Options
		first, most, connection int
	}{
		{"adapts", Options{MaxStreams: 512}, limit.Start, 512, 11},
		{"adapts, up to a few", Options{MaxStreams: 2}, 2, 2, 3},
		{"fixed", Options{Streams: 200, MaxStreams: 512}, 200, 200, 4},
	} {
		c := newSubmitter(nil, nil, nil, newLimit(test.opts))
		if c.limit.Limit() != test.first || c.limit.Max() != test.most || c.connections.Len() != test.connection {
			t.Errorf("%s: %d streams up to %d over %d connections", test.name, c.limit.Limit(), c.limit.Max(), c.connections.Len())
		}
	}
}
