package diagnostics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// places bounds the connections of a listener. When all places are taken, a new
// connection replaces the one that has been idle for longest. Idle or slow connections
// must not keep the prober out, because Cloud Run restarts a container that it cannot
// probe.
type places struct {
	net.Listener
	limit int

	mu    sync.Mutex
	taken map[*place]struct{}
}

// place is one accepted connection.
type place struct {
	net.Conn
	of *places
	// Guarded by of.mu:
	serving int       // requests
	since   time.Time // when it was accepted, or was served last
}

func newPlaces(listener net.Listener, limit int) *places {
	return &places{Listener: listener, limit: limit, taken: map[*place]struct{}{}}
}

// Accept waits for a connection, and closes an idle one if the limit is reached.
func (p *places) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &place{Conn: conn, of: p, since: time.Now()}
	if gone := p.add(c); gone != nil {
		_ = gone.Close() // it may have been closed just now
	}
	return c, nil
}

// add returns the connection that must be closed. It returns nil if the limit is not
// reached, or if all connections are serving requests: the endpoints bound those.
func (p *places) add(c *place) (gone *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.taken) >= p.limit {
		for other := range p.taken {
			if other.serving == 0 && (gone == nil || other.since.Before(gone.since)) {
				gone = other
			}
		}
		delete(p.taken, gone)
	}
	p.taken[c] = struct{}{}
	return gone
}

// Close frees the place.
func (c *place) Close() error {
	c.of.mu.Lock()
	delete(c.of.taken, c)
	c.of.mu.Unlock()
	err := c.Conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *place) serve(change int) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.serving += change
	c.since = time.Now()
}

type placeKey struct{}

// remember is for http.Server's ConnContext.
func remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, conn)
}

// keepPlaces marks a connection as busy while a request on it is served, so that
// Accept does not close it.
func keepPlaces(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(placeKey{}).(*place); ok {
			c.serve(+1)
			defer c.serve(-1)
		}
		next.ServeHTTP(w, r)
	})
}
