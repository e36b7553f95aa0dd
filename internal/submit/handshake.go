package submit

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
)

// handshakes remembers how the last TLS handshake ended, for who asks.
type handshakes struct {
	credentials.TransportCredentials
	last *lastHandshake
}

type lastHandshake struct {
	mu    sync.Mutex
	state *tls.ConnectionState
	err   error
}

// ClientHandshake does the handshake.
func (h *handshakes) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, conn)
	h.last.mu.Lock()
	defer h.last.mu.Unlock()
	h.last.state, h.last.err = nil, err
	if t, ok := info.(credentials.TLSInfo); ok && err == nil {
		h.last.state = &t.State
	}
	return secured, info, err
}

// Clone returns a copy that remembers in the same place.
func (h *handshakes) Clone() credentials.TransportCredentials {
	return &handshakes{TransportCredentials: h.TransportCredentials.Clone(), last: h.last}
}

// first is the connection that probes travel over; nil: the client has none.
func (c *Client) first() *connection {
	switch over := c.transport.(type) {
	case pool:
		return over[0]
	case *connection:
		return over
	}
	return nil
}

// Connect connects, and tries again until it works or ctx ends. Streams connect
// by themselves; this is for who asks whether it works. The error is the last of
// TLS, or ctx's.
func (c *Client) Connect(ctx context.Context) error {
	over := c.first()
	if over == nil {
		return nil
	}
	for {
		state := over.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		over.conn.Connect() // if it is idle
		if !over.conn.WaitForStateChange(ctx, state) {
			if _, err := c.TLS(); err != nil {
				return err
			}
			return errors.Join(context.Cause(ctx), reason(ctx, over.conn.Target()))
		}
	}
}

// reason says why a connection cannot be made, which gRPC tells to RPCs only.
func reason(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reasonTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(target, "dns:///"))
	if err != nil {
		return err
	}
	return conn.Close()
}

const reasonTimeout = 2 * time.Second

// TLS returns the state of the last connection with TLS, or why there is none;
// both are nil when none was tried.
func (c *Client) TLS() (*tls.ConnectionState, error) {
	over := c.first()
	if over == nil || over.tls == nil {
		return nil, nil
	}
	last := over.tls.last
	last.mu.Lock()
	defer last.mu.Unlock()
	return last.state, last.err
}
