package relay

// streamHistory decides whether an event is at fault for streams that fail. It is pure.
// Its clock counts submissions and results, so that "after" does not depend on how fast
// a machine is. The loop owns it.
type streamHistory struct {
	rejectAfter int // Options.RejectAfter

	clock      uint64
	recordedAt uint64 // when something was last recorded; 0: never
	failedAt   uint64 // when a stream last failed whose events were not cut out; 0: never
	failing    int    // events whose streams failed although they were cut out, since something was recorded
}

// refusals are the streams that failed with an event alone in them, or with the events of an
// identity.
type refusals struct {
	counted  int    // that count against the event
	proven   int    // of those, after which something else was recorded before the next one
	latest   uint64 // when the latest one failed; 0: none did
	sinceRec uint64 // the history's recordedAt when the present failures began, plus one; 0: none
}

// maxFailingAtOnce is how many events may fail alone, with nothing recorded in between,
// before that is rather an outage.
const maxFailingAtOnce = 5

// An event whose streams fail alone gets at least so many of them; more when nothing was
// recorded in between; and still more when they fail as connections do by chance.
const (
	minRefusals         = 3
	minUnprovenRefusals = 6
	transportRefusals   = 4
)

// tick advances the clock and returns its time.
func (h *streamHistory) tick() uint64 {
	h.clock++
	return h.clock
}

// recorded notes that the gateway recorded an event.
func (h *streamHistory) recorded() { h.recordedAt, h.failing = h.clock, 0 }

// othersFailed notes that a stream failed whose events were not cut out.
func (h *streamHistory) othersFailed() { h.failedAt = h.clock }

// cutOutFailed notes that a stream failed that carried an event which was cut out.
func (h *streamHistory) cutOutFailed(r *refusals) {
	if r.sinceRec != h.recordedAt+1 {
		r.sinceRec = h.recordedAt + 1
		h.failing++
	}
}

// refusal is a stream that failed with an event alone in it, while a canary passed.
type refusal struct {
	since     uint64 // when the first stream of the event failed, or of the batch that it was cut out of
	timedOut  bool   // a slow gateway looks so
	capacity  bool   // the gateway had no capacity for the stream
	transport bool   // a bad connection looks so
}

// atFault notes a refusal and reports whether the event is at fault: it was alone in
// enough streams that failed while the gateway recorded others.
func (h *streamHistory) atFault(r *refusals, f refusal) bool {
	if f.capacity {
		return false // a gateway at its capacity refuses any event
	}
	if h.failedAt > r.latest {
		r.counted, r.proven = 0, 0 // others fail too
	}
	between := r.latest > 0 && h.recordedAt > r.latest
	r.latest = h.clock
	if h.recordedAt < f.since || h.recordedAt < h.failedAt {
		return false
	}
	if between {
		r.proven++
	} else if h.failing > maxFailingAtOnce {
		return false // too many for it to be their fault
	}
	r.counted++
	if f.timedOut {
		return false
	}
	// If nothing was recorded between two of its failures, an outage may just have
	// begun: such failures prove less.
	proven, unproven := max(h.rejectAfter, minRefusals), max(h.rejectAfter, minUnprovenRefusals)
	if f.transport {
		proven, unproven = proven+transportRefusals, unproven+transportRefusals
	}
	return r.proven+1 >= proven || r.counted >= unproven
}

// refused notes that the gateway refused a stream, and took a stream without events of the same
// identity, or of another one if it refuses the identity. started is when the stream began,
// by the logical clock. It reports whether the event, or the identity, is at fault. One
// refusal proves nothing: an outage may have ended between it and the stream that the
// gateway took, or one of several instances may refuse everything. Then events that were
// refused alone are recorded later, and the count begins anew.
func (h *streamHistory) refused(r *refusals, started uint64) bool {
	if h.failedAt > r.latest {
		r.counted, r.proven = 0, 0 // the gateway refuses others that are not at fault
	}
	if r.latest == 0 || started > r.latest { // others show nothing more about the same moment
		r.latest = h.clock
		r.counted++
	}
	return r.counted >= minUnprovenRefusals
}

// refusedButRecorded notes that the gateway recorded an event that it had refused, alone or
// with its identity. So its refusals of others prove nothing, either.
func (h *streamHistory) refusedButRecorded(r *refusals) {
	if r.latest > 0 {
		*r = refusals{}
		h.othersFailed()
	}
}
