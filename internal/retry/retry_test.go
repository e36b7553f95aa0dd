package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errPassing = errors.New("passing")
	errLate    = errors.New("late")
	errFinal   = errors.New("final")
)

func kindOf(err error) Kind {
	switch {
	case errors.Is(err, errFinal):
		return Final
	case errors.Is(err, errLate):
		return Late
	}
	return Transient
}

// TestUntilRepeatsTransientErrors tries with these errors, the last one again and again.
func TestUntilRepeatsTransientErrors(t *testing.T) {
	for name, test := range map[string]struct {
		errs []error
		want error
		most int // tries
	}{
		"at once":           {[]error{nil}, nil, 1},
		"at last":           {[]error{errPassing, errLate, errPassing, nil}, nil, 4},
		"never":             {[]error{errPassing, errFinal, nil}, errFinal, 2},
		"not in time":       {[]error{errPassing}, errPassing, 1000},
		"late at the end":   {[]error{errPassing, errLate}, errPassing, 1000},
		"nothing but late":  {[]error{errLate}, errLate, 1000},
		"late at the start": {[]error{errLate, errPassing}, errPassing, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tries := 0
				got, err := Until(ctx, 5*time.Second, func() (int, error) {
					err := test.errs[min(tries, len(test.errs)-1)]
					tries++
					return tries, err
				}, kindOf)
				if !errors.Is(err, test.want) || (test.want == nil) != (err == nil) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if tries > test.most || err == nil && got != test.most {
					t.Errorf("%d tries, result %d", tries, got)
				}
				if test.most == 1000 && (tries < 60/5/2 || ctx.Err() == nil) {
					t.Errorf("%d tries, and the context: %v", tries, ctx.Err())
				}
			})
		})
	}
}
