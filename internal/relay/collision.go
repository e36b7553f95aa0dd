package relay

import (
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Different events may have one id: a publisher may send the nil UUID with each of
// them. They share payloads, because the gateway lists an id once for each event that
// it has recorded: as many listings as there were events settle all of them. If there
// are fewer, nobody can tell which ones are recorded. Then they are submitted again in
// smaller payloads, until the answers tell. Some are recorded twice by that.

// collision is some events of a submission that have one id, of which some are recorded.
type collision struct {
	events   []*inflight
	recorded int // of them: at least one, and not all
}

// takeCollisions takes the events of collisions out of a submission that was answered.
func (s *submission) takeCollisions(found []submit.Collision) (all []collision) {
	for _, c := range found {
		taken := collision{recorded: c.Recorded}
		for _, i := range c.Events {
			if e := s.events[i]; !e.settled {
				taken.events = append(taken.events, e)
			}
			s.events[i] = nil
		}
		all = append(all, taken)
	}
	return all
}

// pieces is over how many payloads the events are spread. The missing ones are in half
// of twice as many payloads at most, so every other one is settled at once, and an
// event is recorded twice about once. A gateway that lists an id once whatever it has
// recorded seems to miss all events but one, which gives each a payload of its own.
func (c collision) pieces() int {
	n := len(c.events)
	return min(n, max(2, 2*(n-c.recorded)))
}

// spread deals the events of each collision over its pieces. The pieces of different
// collisions share payloads, because their ids differ.
func spread(collisions []collision) (payloads [][]*inflight) {
	for _, c := range collisions {
		n := c.pieces()
		for len(payloads) < n {
			payloads = append(payloads, nil)
		}
		for i, e := range c.events {
			payloads[i%n] = append(payloads[i%n], e)
		}
	}
	return payloads
}
