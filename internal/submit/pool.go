package submit

import (
	"context"
	"errors"

	"github.com/sourcegraph/telemetry-relay/internal/limit"
)

// pool is a Transport over several connections. A connection that no batch selects is never
// opened, and one without streams is closed after idleTimeout.
type pool []*connection

// dialPool prepares as many connections as this number of streams needs.
func dialPool(address string, streams int) (pool, error) {
	var p pool
	for range limit.ConnectionsFor(streams) {
		c, err := dial(address)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p = append(p, c)
	}
	return p, nil
}

// Exchange runs one stream over the connection that the batch selects.
func (p pool) Exchange(ctx context.Context, token string, b Batch, l *Listing) error {
	return p[b.Connection%len(p)].Exchange(ctx, token, b, l)
}

// Close closes all connections.
func (p pool) Close() error {
	var errs []error
	for _, c := range p {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
