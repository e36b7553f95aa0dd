package submit

import (
	"context"
	"errors"
)

// Connections is how many connections a client has to the gateway. An instance
// of the gateway that cannot publish looks, to a client with one connection,
// like a gateway that records nothing: a front may send all streams of a
// connection to one instance.
const Connections = 3

// pool is a Transport over several connections.
type pool [Connections]*connection

func dialPool(address string) (*pool, error) {
	p := new(pool)
	for i := range p {
		var err error
		if p[i], err = dial(address); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// Exchange is one stream, over the connection that the batch chooses.
func (p *pool) Exchange(ctx context.Context, token string, b Batch, l *Listing) error {
	return p[b.Connection%Connections].Exchange(ctx, token, b, l)
}

// Close closes all connections.
func (p *pool) Close() error {
	var errs []error
	for _, c := range p {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
