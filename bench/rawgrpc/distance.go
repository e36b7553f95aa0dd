package rawgrpc

import (
	"io"
	"net"
	"sync"
	"time"
)

// distantListener delays its connections by the round-trip time of a distant client: bytes
// arrive late, and many are on the way at once.
type distantListener struct {
	net.Listener
	oneWay time.Duration
}

// Accept waits for the next connection.
func (l distantListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &distantConn{Conn: conn, oneWay: l.oneWay, in: make(chan parcel, parcels), out: make(chan parcel, parcels), closed: make(chan struct{})}
	go c.receive()
	go c.send()
	return c, nil
}

// parcel is a piece of data on the way, and the time of its arrival. A parcel with an error
// is the last.
type parcel struct {
	due   time.Time
	bytes []byte
	err   error
}

const (
	// parcels may be on their way in one direction.
	parcels    = 1024
	parcelSize = 64 << 10
)

// distantConn is a connection to a distant client. Its two goroutines end when it is
// closed.
type distantConn struct {
	net.Conn
	oneWay  time.Duration
	in, out chan parcel
	rest    []byte // of the parcel that is being read
	end     error  // of reading
	close   sync.Once
	closed  chan struct{}
}

// receive reads from the client.
func (c *distantConn) receive() {
	for {
		b := make([]byte, parcelSize)
		n, err := c.Conn.Read(b)
		select {
		case c.in <- parcel{time.Now().Add(c.oneWay), b[:n], err}:
		case <-c.closed:
			return
		}
		if err != nil {
			return
		}
	}
}

// send writes to the client.
func (c *distantConn) send() {
	for {
		select {
		case p := <-c.out:
			if !c.await(p.due) {
				return
			}
			if _, err := c.Conn.Write(p.bytes); err != nil {
				_ = c.Close() // the error is the next Write's
				return
			}
		case <-c.closed:
			return
		}
	}
}

// await waits until a time. It returns false if the connection is closed before.
func (c *distantConn) await(due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.closed:
		return false
	}
}

// Read returns bytes that have arrived.
func (c *distantConn) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.end != nil {
			return 0, c.end
		}
		select {
		case p := <-c.in:
			if !c.await(p.due) {
				return 0, net.ErrClosed
			}
			c.rest, c.end = p.bytes, p.err
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write sends bytes, which arrive later.
func (c *distantConn) Write(b []byte) (int, error) {
	select {
	case c.out <- parcel{due: time.Now().Add(c.oneWay), bytes: append([]byte(nil), b...)}:
		return len(b), nil
	case <-c.closed:
		return 0, io.ErrClosedPipe
	}
}

// Close closes the connection at once.
func (c *distantConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
