package consume

import (
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

const (
	// settleWorkers is how many requests of a kind are sent at once while Pub/Sub answers
	// quickly. More workers would send more and smaller requests.
	settleWorkers = 2
	// slowAnswer is how long a worker waits for an answer before it sends the next request
	// concurrently.
	slowAnswer = 50 * time.Millisecond
	// lastRefusal is how often in a row Pub/Sub may refuse every id of a request as invalid
	// before the receiver gives them up.
	lastRefusal = 5
)

// settler sends the acks and nacks that are due in the table of leases. Its goroutines
// belong to the Receiver.
type settler struct {
	sub      Subscriber
	leases   *leases
	log      *slog.Logger
	requests requests
}

// acknowledge sends acks until ctx ends.
func (s *settler) acknowledge(ctx context.Context) {
	for {
		batch, err := s.leases.takeAcks(ctx)
		if err != nil {
			return
		}
		if s.run(ctx, func() { s.sendAcks(ctx, batch) }) != nil {
			return
		}
	}
}

// nack sends nacks until ctx ends.
func (s *settler) nack(ctx context.Context) {
	for {
		ids, err := s.leases.takeNacks(ctx)
		if err != nil {
			return
		}
		if s.run(ctx, func() { s.sendNacks(ctx, ids) }) != nil {
			return
		}
	}
}

// run starts a request. It returns when the request is done or slow.
func (s *settler) run(ctx context.Context, request func()) error {
	done, err := s.requests.start(ctx, request)
	if err != nil {
		return err
	}
	slow := time.NewTimer(slowAnswer)
	defer slow.Stop()
	select {
	case <-done:
	case <-slow.C:
	}
	return nil
}

// sendAcks repeats acks until Pub/Sub has taken or refused each of them, or ctx ends.
func (s *settler) sendAcks(ctx context.Context, batch []pendingAck) {
	request := newSettling(s.sub.Acknowledge)
	for {
		ids := make([]string, len(batch))
		for i, p := range batch {
			ids[i] = p.ackID
		}
		fates, err := request.attempt(ctx, ids)
		if ctx.Err() != nil {
			return
		}
		before := len(batch)
		batch = s.leases.confirmAcks(batch, fates)
		if err != nil {
			s.log.Warn("Pub/Sub did not take all acknowledgements", "messages", before, "again", len(batch),
				"given_up", countFates(fates, lost), "code", Code(err), "error", err)
		}
		if len(batch) == 0 || request.wait(ctx) != nil {
			return
		}
	}
}

// sendNacks repeats nacks until Pub/Sub has taken each of them, or ctx ends. An id that
// Pub/Sub does not accept needs no nack, because its lease has ended.
func (s *settler) sendNacks(ctx context.Context, ids []string) {
	nack := func(ctx context.Context, ids []string) error { return s.sub.ModifyAckDeadline(ctx, ids, 0) }
	request := newSettling(nack)
	for {
		fates, err := request.attempt(ctx, ids)
		if ctx.Err() != nil {
			return
		}
		left := ids[:0:0]
		for i, id := range ids {
			if fates[i] == again {
				left = append(left, id)
			}
		}
		s.leases.confirmNacks(len(ids) - len(left))
		if err != nil {
			s.log.Warn("Pub/Sub did not take all nacks", "messages", len(ids), "again", len(left), "code", Code(err), "error", err)
		}
		if ids = left; len(ids) == 0 || request.wait(ctx) != nil {
			return
		}
	}
}

// settling repeats a request about ack ids.
type settling struct {
	do       call
	pause    *backoff.ExponentialBackOff
	refusals int // how often Pub/Sub refused every id as invalid
}

func newSettling(do call) *settling {
	return &settling{do: do, pause: retry.NewBackOff(50*time.Millisecond, 2*time.Second)}
}

// attempt sends the request once. It gives up all ids when Pub/Sub refuses every one as
// invalid for the lastRefusal-th time.
func (s *settling) attempt(ctx context.Context, ids []string) ([]fate, error) {
	fates, err := attempt(ctx, rpcTimeout, s.do, ids)
	if ctx.Err() == nil && err != nil && allInvalid(err, fates) {
		if s.refusals++; s.refusals >= lastRefusal {
			giveUp(fates)
		}
	}
	return fates, err
}

// wait pauses before the next request.
func (s *settling) wait(ctx context.Context) error { return retry.Sleep(ctx, s.pause.NextBackOff()) }

// allInvalid reports whether Pub/Sub refused every id of a request as invalid. The reason
// may be the request or each of the ids.
func allInvalid(err error, fates []fate) bool {
	return invalid(err) && countFates(fates, again) == len(fates)
}

func giveUp(fates []fate) {
	for i := range fates {
		fates[i] = lost
	}
}

func countFates(fates []fate, of fate) (n int) {
	for _, f := range fates {
		if f == of {
			n++
		}
	}
	return n
}

// Code returns the name of an error's gRPC code. Codes that gRPC does not have, which a
// server may send, become Unknown, because the names are values of a metric's label.
func Code(err error) string {
	c := status.Code(err)
	if c > codes.Unauthenticated {
		c = codes.Unknown
	}
	return c.String()
}
