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

// handshakes remembers the result of the last TLS handshake.
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

// Clone returns a copy that remembers results in the same place.
func (h *handshakes) Clone() credentials.TransportCredentials {
	return &handshakes{TransportCredentials: h.TransportCredentials.Clone(), last: h.last}
}

// first returns the connection over which probes travel, or nil if the transport is none of
// this package.
func (c *Client) first() *connection {
	switch over := c.transport.(type) {
	case pool:
		return over[0]
	case *connection:
		return over
	}
	return nil
}

// Connect opens the connection, and tries again until it succeeds or ctx ends. Streams do
// not need it; it is for checks. The error is the last one of TLS, or that of ctx.
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
		over.conn.Connect() // no effect unless idle
		if !over.conn.WaitForStateChange(ctx, state) {
			if _, err := c.TLS(); err != nil {
				return err
			}
			return errors.Join(context.Cause(ctx), reason(ctx, over.conn.Target()))
		}
	}
}

// reason returns why no connection can be made. gRPC reports it to RPCs only.
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

// TLS returns the state of the last TLS connection, or why it failed. Both are nil if none
// was tried.
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
