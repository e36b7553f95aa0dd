package pubsubserver

import "sync"

// streams are the open StreamingPull streams of a Server.
type streams struct {
	readers sync.WaitGroup // the goroutines that read the streams

	mu   sync.RWMutex // guards what follows
	open map[*pullStream]struct{}
}

func newStreams() *streams { return &streams{open: map[*pullStream]struct{}{}} }

// run runs a stream until it ends, silent from its start or not.
func (s *streams) run(p *pullStream, silent bool) error {
	s.add(p, silent)
	defer p.sub.queue.leave(p.consumer)
	defer s.remove(p)
	// The reader can only be stopped by the return of the RPC's handler, so it is not the
	// handler but the server that waits for it.
	s.readers.Go(p.read)
	return p.deliver(p.grpc.Context())
}

func (s *streams) add(p *pullStream, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[p] = struct{}{}
	if silent {
		p.sub.queue.silence(p.consumer)
	}
}

func (s *streams) remove(p *pullStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p)
}

// BreakStreams ends all open StreamingPull streams with err, as the service does
// now and then; nil means Unavailable. Leases run on. Streams that were silenced do not hear
// of it.
func (s *Server) BreakStreams(err error) {
	if err == nil {
		err = errStreamEnded
	}
	s.streams.end(err)
}

// Streams returns the number of open StreamingPull streams of a subscription.
func (s *Server) Streams(subscription string) int { return s.streams.count(subscription) }

// end ends all streams with err.
func (s *streams) end(err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for p := range s.open {
		p.end(err)
	}
}

// silence makes the streams of a subscription go silent and returns how many it were.
func (s *streams) silence(subscription string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for p := range s.open {
		if p.sub.name == subscription && !p.isSilent() {
			p.sub.queue.silence(p.consumer)
			n++
		}
	}
	return n
}

// count returns the number of a subscription's streams.
func (s *streams) count(subscription string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for p := range s.open {
		if p.sub.name == subscription {
			n++
		}
	}
	return n
}
