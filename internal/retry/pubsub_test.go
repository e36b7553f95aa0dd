package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestClassOf(t *testing.T) {
	for class, all := range map[Class][]codes.Code{
		Outage:  {codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.DeadlineExceeded, codes.Canceled},
		Refusal: {codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented},
		Fault:   {codes.InvalidArgument, codes.OutOfRange, codes.AlreadyExists, codes.DataLoss},
	} {
		for _, code := range all {
			if got := ClassOf(status.Error(code, "x")); got != class {
				t.Errorf("%v: got %v, want %v", code, got, class)
			}
		}
	}
	if got := ClassOf(errors.New("x")); got != Outage {
		t.Errorf("no status: got %v", got)
	}
}

// TestPubSubCodesAreRetried has requests fail for a while, each with one code.
func TestPubSubCodesAreRetried(t *testing.T) {
	const outage, refusal = time.Minute, 15 * time.Second
	for name, c := range map[string]struct {
		code    codes.Code
		lasts   time.Duration
		worked  bool          // a request before this one
		atMost  time.Duration // with an error
		succeed bool
	}{
		"at once":                    {codes.Unavailable, 0, false, 0, true},
		"an outage ends":             {codes.Unavailable, 50 * time.Second, false, 0, true},
		"an outage lasts":            {codes.Unavailable, time.Hour, false, outage, false},
		"a refusal ends":             {codes.PermissionDenied, 13 * time.Second, false, 0, true},
		"a refusal lasts":            {codes.PermissionDenied, time.Hour, false, refusal + 3*maxPause/2, false},
		"a refusal in between ends":  {codes.Unauthenticated, 50 * time.Second, true, 0, true},
		"a refusal in between lasts": {codes.Unauthenticated, time.Hour, true, outage, false},
		"a fault":                    {codes.InvalidArgument, time.Second, true, time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &Bounds{Outage: outage, Refusal: refusal}
				if c.worked {
					if _, err := Bounded(t.Context(), b, func() (int, error) { return 1, nil }, nil); err != nil {
						t.Fatal(err)
					}
				}
				began, notified := time.Now(), 0
				got, err := Bounded(t.Context(), b, func() (int, error) {
					if time.Since(began) < c.lasts {
						return 0, status.Error(c.code, "x")
					}
					return 7, nil
				}, func(err error, class Class) {
					notified++
					if status.Code(err) != c.code || class != ClassOf(err) {
						t.Errorf("notified of %v, %v", err, class)
					}
				})
				took := time.Since(began)
				if bound := int(took/remindEvery) + 1; notified > bound {
					t.Errorf("notified %d times in %v", notified, took)
				}
				switch {
				case c.succeed && (err != nil || got != 7 || took > c.lasts+2*maxPause || (notified > 0) != (c.lasts > 0)):
					t.Errorf("%d, %v after %v, notified %d times", got, err, took, notified)
				case !c.succeed && (status.Code(err) != c.code || took > c.atMost || took < c.atMost-3*maxPause):
					t.Errorf("%v after %v, want %v", err, took, c.atMost)
				}
			})
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			began := time.Now()
			_, err := Bounded(ctx, &Bounds{Outage: outage, Refusal: refusal}, func() (int, error) {
				return 0, status.Error(codes.Unavailable, "x")
			}, func(error, Class) {})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	})
}
