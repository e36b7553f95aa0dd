package submit

import (
	"context"
	"errors"

	"github.com/sourcegraph/telemetry-relay/internal/limit"
)

// pool is a Transport over several connections. One that no batch chooses is never
// made, and one without streams closes after idleTimeout.
type pool []*connection

// dialPool prepares the connections that so many streams need.
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

// Exchange is one stream, over the connection that the batch chooses.
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
