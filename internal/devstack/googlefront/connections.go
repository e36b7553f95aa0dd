package googlefront

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// connections is a listener with a list of its open connections.
type connections struct {
	net.Listener

	mu   sync.Mutex
	open []*connection // in the order in which they were accepted
}

func newConnections(l net.Listener) *connections { return &connections{Listener: l} }

// Accept waits for the next connection.
func (c *connections) Accept() (net.Conn, error) {
	accepted, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &connection{Conn: accepted, list: c, gone: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, conn)
	return conn, nil
}

func (c *connections) remove(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(o *connection) bool { return o == conn })
}

// peers returns the remote addresses.
func (c *connections) peers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	peers := make([]string, len(c.open))
	for i, conn := range c.open {
		peers[i] = conn.RemoteAddr().String()
	}
	return peers
}

// close closes the connections that are open.
func (c *connections) close() {
	c.mu.Lock()
	open := slices.Clone(c.open)
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close()
	}
}

func (c *connections) freeze(peer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		if conn.RemoteAddr().String() == peer {
			conn.frozen.Store(true)
			return true
		}
	}
	return false
}

// connection is one that can go dead.
type connection struct {
	net.Conn
	list   *connections
	frozen atomic.Bool
	closed sync.Once
	gone   chan struct{} // closed by Close
}

// Read drops the bytes that a frozen connection receives, and does not report its end.
func (c *connection) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if !c.frozen.Load() {
			return n, err
		}
		if err != nil {
			<-c.gone
			return 0, err
		}
	}
}

// Write drops the bytes for a frozen connection.
func (c *connection) Write(b []byte) (int, error) {
	if c.frozen.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Close ends the connection, a frozen one too.
func (c *connection) Close() error {
	c.closed.Do(func() {
		close(c.gone)
		c.list.remove(c)
	})
	return c.Conn.Close()
}
