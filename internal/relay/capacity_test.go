package relay

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// TestMeaning is what the end of a flight of ten events says about the capacity.
func TestMeaning(t *testing.T) {
	failed := func(class submit.Class, code codes.Code) submit.Result {
		return submit.Result{Took: time.Second, Failure: &submit.Failure{Class: class, Code: code}}
	}
	ended := submit.Result{Took: time.Second}
	for _, test := range []struct {
		name     string
		flight   flight
		result   submit.Result
		recorded int
		want     limit.Outcome
	}{
		{"all are recorded", flight{}, ended, 10, limit.Answered},
		{"some are recorded", flight{}, ended, 1, limit.Answered},
		{"some suspects are recorded", flight{suspect: true}, ended, 1, limit.Answered},
		{"none is recorded", flight{}, ended, 0, limit.Ignored},
		{"cut off after all are recorded", flight{}, failed(submit.Transient, codes.Unavailable), 10, limit.Answered},
		{"cut off before", flight{}, failed(submit.Transient, codes.Unavailable), 9, limit.Failed},
		{"the gateway has no capacity", flight{}, failed(submit.Transient, codes.ResourceExhausted), 0, limit.Refused},
		{"it takes too long", flight{}, failed(submit.Transient, codes.DeadlineExceeded), 0, limit.Failed},
		{"suspects fail", flight{suspect: true}, failed(submit.Transient, codes.Internal), 0, limit.Ignored},
		{"suspects are refused for lack of capacity", flight{suspect: true}, failed(submit.Transient, codes.ResourceExhausted), 0, limit.Ignored},
		{"what was cut out fails", flight{isolated: true}, failed(submit.Transient, codes.Internal), 0, limit.Ignored},
		{"no token", flight{}, failed(submit.SAMS, codes.Unavailable), 0, limit.Ignored},
		{"the token is refused", flight{}, failed(submit.Credentials, codes.Unauthenticated), 0, limit.Ignored},
		{"the events are refused", flight{}, failed(submit.BatchRefused, codes.InvalidArgument), 0, limit.Ignored},
		{"the identity is refused", flight{}, failed(submit.IdentityRefused, codes.InvalidArgument), 0, limit.Ignored},
		{"nothing was sent", flight{}, submit.Result{Failure: submit.NotSent(nil)}, 0, limit.Ignored},
	} {
		test.flight.size.events = 10
		if got := meaning(&test.flight, test.result, test.recorded); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestNewCapacity(t *testing.T) {
	for _, test := range []struct {
		name                    string
		opts                    Options
		first, most, connection int
	}{
		{"adapts", Options{MaxStreams: 512}, limit.Start, 512, 11},
		{"adapts, up to a few", Options{MaxStreams: 2}, 2, 2, 3},
		{"fixed", Options{Streams: 200, MaxStreams: 512}, 200, 200, 4},
	} {
		c := newCapacity(test.opts)
		if c.limit.Limit() != test.first || c.limit.Max() != test.most || c.connections.Len() != test.connection {
			t.Errorf("%s: %d streams up to %d over %d connections", test.name, c.limit.Limit(), c.limit.Max(), c.connections.Len())
		}
	}
}
