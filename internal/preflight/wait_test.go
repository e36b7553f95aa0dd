package preflight

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// changing is a Pub/Sub whose answers depend on the time since the start; what is
// not there fails with a code.
type changing struct {
	began time.Time
	there map[string]time.Duration // from when on, by resource or permission
	code  codes.Code
}

func (c *changing) ask(what string) error {
	if time.Since(c.began) >= c.there[what] {
		return nil
	}
	return status.Error(c.code, "no")
}

func (c *changing) Subscription(_ context.Context, name string) (*pubsubpb.Subscription, error) {
	return &pubsubpb.Subscription{Name: name, Topic: topicName}, c.ask(name)
}

func (c *changing) Topic(_ context.Context, name string) (*pubsubpb.Topic, error) {
	return &pubsubpb.Topic{Name: name}, c.ask(name)
}

func (c *changing) HoldsOnSubscription(_ context.Context, _, permission string) (bool, error) {
	return c.ask(permission) == nil, nil
}

func (c *changing) HoldsOnTopic(_ context.Context, _, permission string) (bool, error) {
	return c.ask(permission) == nil, nil
}

// TestWaitsForWhatIsMissing: what was just created or granted is waited for, and
// what is not there after 15 seconds ends the run with all that is missing.
func TestWaitsForWhatIsMissing(t *testing.T) {
	const (
		never   = time.Hour
		consume = "pubsub.subscriptions.consume"
		publish = "pubsub.topics.publish"
	)
	for name, c := range map[string]struct {
		there map[string]time.Duration
		code  codes.Code
		want  []string // in the error; none: the run goes on
		took  time.Duration
	}{
		"all is there":                  {nil, codes.NotFound, nil, 0},
		"the subscription comes":        {map[string]time.Duration{subName: 5 * time.Second}, codes.NotFound, nil, 5 * time.Second},
		"a topic comes at last":         {map[string]time.Duration{dlqName: 15 * time.Second}, codes.NotFound, nil, 15 * time.Second},
		"permissions come":              {map[string]time.Duration{consume: 3 * time.Second, publish: 7 * time.Second}, codes.NotFound, nil, 7 * time.Second},
		"a token comes":                 {map[string]time.Duration{subName: 4 * time.Second, dlqName: 4 * time.Second, topicName: 4 * time.Second}, codes.Unauthenticated, nil, 4 * time.Second},
		"a proxy's 404 passes":          {map[string]time.Duration{subName: 4 * time.Second}, codes.Unimplemented, nil, 4 * time.Second},
		"the subscription never comes":  {map[string]time.Duration{subName: never}, codes.NotFound, []string{"PUBSUB_SUBSCRIPTION: the subscription " + subName + " does not exist"}, StartWait},
		"one of two comes":              {map[string]time.Duration{subName: 5 * time.Second, dlqName: never}, codes.NotFound, []string{"DLQ_TOPIC: the dead-letter topic " + dlqName + " does not exist"}, StartWait},
		"a token never comes":           {map[string]time.Duration{topicName: never}, codes.Unauthenticated, []string{"PUBSUB_TOPIC: the topic " + topicName + " cannot be used: rpc error: code = Unauthenticated"}, StartWait},
		"permissions never come":        {map[string]time.Duration{consume: never, publish: never}, codes.NotFound, []string{"PUBSUB_SUBSCRIPTION: the worker does not have the permission " + consume, "DLQ_TOPIC: the worker does not have the permission " + publish}, StartWait},
		"a fault that does not pass":    {map[string]time.Duration{subName: never}, codes.InvalidArgument, []string{"PUBSUB_SUBSCRIPTION: the subscription " + subName + " cannot be used"}, 0},
		"settings that may not be read": {map[string]time.Duration{subName: never, dlqName: never}, codes.PermissionDenied, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				began := time.Now()
				err := run(t.Context(), &changing{began, c.there, c.code}, needs(), StartWait, slog.New(slog.NewTextHandler(&log, nil)))
				wantLines(t, err, c.want...)
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				warned := 0
				if c.took > 0 {
					warned = 1
				}
				if got := strings.Count(log.String(), "missing; waiting for it"); got != warned {
					t.Errorf("%d warnings: %s", got, log.String())
				}
			})
		})
	}
}

// TestWaitEndsWithItsContext names nothing that may yet come.
func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		err := run(ctx, &changing{began, map[string]time.Duration{subName: time.Hour}, codes.NotFound}, needs(), StartWait, slog.New(slog.DiscardHandler))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
