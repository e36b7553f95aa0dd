package limit

import "testing"

func TestConnectionsFor(t *testing.T) {
	for streams, want := range map[int]int{1: 3, 8: 3, 150: 3, 151: 4, 200: 4, 201: 5, 512: 11, 1000: 20} {
		if got := ConnectionsFor(streams); got != want {
			t.Errorf("%d streams: %d connections, want %d", streams, got, want)
		}
	}
}

func TestConnectionsForStreams(t *testing.T) {
	c := NewConnections(512)
	if c.Len() != 11 {
		t.Fatalf("%d connections", c.Len())
	}
	var streams []int
	for n := 1; n <= 512; n++ {
		streams = append(streams, c.Start())
		used := 0
		for i, k := range c.inFlight {
			if k > streamsEach+1 {
				t.Fatalf("%d streams: connection %d has %d", n, i, k)
			}
			if k > 0 {
				used++
			}
		}
		if used > ConnectionsFor(n) {
			t.Fatalf("%d streams have %d connections", n, used)
		}
	}
	// Half of them end, whichever: the next ones leave the last connections idle.
	for i := 0; i < 512; i += 2 {
		c.Ended(streams[i])
	}
	for range 10_000 {
		streams = streams[:0]
		for i, k := range c.inFlight {
			if k > 0 {
				streams = append(streams, i)
			}
		}
		c.Ended(streams[len(streams)-1])
		c.Start()
	}
	if used := len(streams); used != ConnectionsFor(256) {
		t.Errorf("256 streams have %d connections", used)
	}
}

// TestOneStreamAtATime uses all connections in turns.
func TestOneStreamAtATime(t *testing.T) {
	c := NewConnections(512)
	used := map[int]int{}
	for range 300 {
		on := c.Start()
		used[on]++
		c.Ended(on)
	}
	if len(used) != FewestConnections || used[0] != 100 || used[1] != 100 {
		t.Errorf("streams of each connection: %v", used)
	}
}

func TestCertainConnection(t *testing.T) {
	c := NewConnections(8)
	for range 6 {
		if got := c.StartOn(1); got != 1 {
			t.Fatalf("connection %d", got)
		}
	}
	// The others make up for it.
	for range 12 {
		if got := c.Start(); got == 1 {
			t.Fatal("connection 1 has the most streams, and got another one")
		}
	}
}

func TestMoreStreamsThanExpected(t *testing.T) {
	c := NewConnections(8)
	for range 1000 {
		c.Start()
	}
	for i, k := range c.inFlight {
		if k < 333 {
			t.Errorf("connection %d has %d streams", i, k)
		}
	}
}
