package recorder

import (
	"context"
	"sync/atomic"

	"github.com/sourcegraph/telemetry-relay/recorder/internal/hook"
)

// tap passes events to a test, at once.
type tap struct {
	tap        hook.Tap
	attributes map[string]string
	accounting *accounting
	closed     atomic.Bool
}

func (t *tap) put(_ context.Context, data []byte) error {
	if t.closed.Load() {
		return ErrClosed
	}
	if err := t.tap.Put(data, t.attributes); err != nil {
		return err
	}
	t.accounting.take(len(data))
	t.accounting.settle(len(data), nil)
	return nil
}

func (t *tap) flush(context.Context) error { return nil }

func (t *tap) close(context.Context) error {
	t.closed.Store(true)
	return nil
}
