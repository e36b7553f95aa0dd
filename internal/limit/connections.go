package limit

const (
	// FewestConnections there are to the gateway. A front may send all streams of one
	// to the same instance, and one instance that cannot publish must not look like a
	// gateway that records nothing.
	FewestConnections = 3
	// streamsEach is how many streams a connection is given before there is another one:
	// half of the 100 that servers commonly allow (SETTINGS_MAX_CONCURRENT_STREAMS).
	// Further streams would wait inside the client, and that would be measured as
	// latency of the gateway. The other half is for when a connection is lost.
	streamsEach = 50
)

// ConnectionsFor is how many connections so many streams need.
func ConnectionsFor(streams int) int {
	return max(FewestConnections, (streams+streamsEach-1)/streamsEach)
}

// Connections spreads streams over as few connections as they need: those that are
// needed no more have no streams, and close when they have been idle. It is not safe for
// concurrent use.
type Connections struct {
	inFlight []int // streams of each connection
	total    int
	last     int // the connection that was chosen last
}

// NewConnections returns the connections for at most this many streams.
func NewConnections(streams int) *Connections {
	return &Connections{inFlight: make([]int, ConnectionsFor(streams))}
}

// Len is how many connections there may be.
func (c *Connections) Len() int { return len(c.inFlight) }

// Start chooses the connection of the next stream: of those that are needed the one with
// the fewest streams. Those with equally many take turns, so that streams one at a time
// also use all of them.
func (c *Connections) Start() int {
	needed := min(ConnectionsFor(c.total+1), len(c.inFlight))
	chosen := (c.last + 1) % needed
	for i := range needed {
		if other := (c.last + 1 + i) % needed; c.inFlight[other] < c.inFlight[chosen] {
			chosen = other
		}
	}
	c.last = chosen
	return c.StartOn(chosen)
}

// StartOn notes that the next stream uses a certain connection, and returns it. The
// tries of an event that was left out each use another one of the first
// FewestConnections.
func (c *Connections) StartOn(connection int) int {
	c.inFlight[connection]++
	c.total++
	return connection
}

// Ended notes that a stream of a connection has ended.
func (c *Connections) Ended(connection int) {
	c.inFlight[connection]--
	c.total--
}
