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
}

// NewConnections returns the connections of so many streams at most.
func NewConnections(streams int) *Connections {
	return &Connections{inFlight: make([]int, ConnectionsFor(streams))}
}

// Len is how many connections there may be.
func (c *Connections) Len() int { return len(c.inFlight) }

// Start chooses the connection of the next stream: of those that are needed the one with
// the fewest streams, and not the one to avoid. An event that was left out is tried over
// another connection; no connection is to be avoided if it is negative.
func (c *Connections) Start(avoid int) int {
	c.total++
	chosen := -1
	for i := range min(ConnectionsFor(c.total), len(c.inFlight)) {
		if i != avoid && (chosen < 0 || c.inFlight[i] < c.inFlight[chosen]) {
			chosen = i
		}
	}
	c.inFlight[chosen]++
	return chosen
}

// Ended notes that a stream of a connection has ended.
func (c *Connections) Ended(connection int) {
	c.inFlight[connection]--
	c.total--
}
