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
// connection gets that of the one that has been without a request for longest:
// connections that are only kept open, or on which a request comes slowly, must
// not keep the prober out, whose silence would restart the container.
type places struct {
	net.Listener
	most int

	mu    sync.Mutex
	taken map[*place]struct{}
}

// place is one connection.
type place struct {
	net.Conn
	of *places
	// Guarded by of.mu:
	serving int       // requests
	since   time.Time // when it was accepted, or was served last
}

func newPlaces(listener net.Listener, most int) *places {
	return &places{Listener: listener, most: most, taken: map[*place]struct{}{}}
}

// Accept waits for a connection, and makes room for it.
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

// add returns the connection that must go. There is none if there is room, or
// if all are being served: that is bounded by the limits of the endpoints.
func (p *places) add(c *place) (gone *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.taken) >= p.most {
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

// keepPlaces has no connection closed while a request on it is being served.
func keepPlaces(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(placeKey{}).(*place); ok {
			c.serve(+1)
			defer c.serve(-1)
		}
		next.ServeHTTP(w, r)
	})
}
