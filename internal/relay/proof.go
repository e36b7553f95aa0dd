package relay

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// schedule is the times of tries and proofs. It is pure.
type schedule struct {
	history *verdict.History
	proved  time.Time // when the latest proof began
}

const (
	// fewControls are rationed, so that they last until the end of a judgment.
	fewControls = 12
	// minTriesASpan and maxTriesASpan bound how often an event is tried in the time that
	// its tries must cover, and proofsASpan how often other traffic gets a turn without
	// suspects.
	minTriesASpan = 5
	maxTriesASpan = 30
	proofsASpan   = 20
	// unprovenTriesASpan is how often an event is tried for which there is no proof.
	unprovenTriesASpan = 8
)

// pause is how long an event that was tried waits for its next try: so that the tries
// that it needs cover the time that they must, with jitter, since an outage may have a
// rhythm. others is how many others can be submitted as a proof.
func (s *schedule) pause(v *verdict.Suspect, others int, rng *rand.Rand, now time.Time) time.Duration {
	span := s.history.Rules.MinSpan
	pause := span / unprovenTriesASpan
	if others > 0 {
		tries, left := s.history.Missing(v, others, now)
		pause = max(left/time.Duration(max(1, tries)), span/maxTriesASpan)
	}
	pause = min(pause, span/minTriesASpan)
	return pause*3/4 + time.Duration(rng.Int64N(int64(pause/2)+1))
}

// proofDue reports whether it is time to find out if the gateway records others, after a
// try of v. tried are all events that are tried, and kept is how many controls there are.
//
// A proof is free when others wait. A control can be spent only once. Of many, the same
// share is spent in a given time, so that those that are at fault themselves are found
// while there are others left. Few of them are rationed: they are spread over the tries
// that the event needs and over the time that these must cover, each proves a try of
// every event, and the last one is kept until it can be the one that is missing.
func (s *schedule) proofDue(v *verdict.Suspect, tried []*verdict.Suspect, kept int, othersWait bool, now time.Time) bool {
	span, since := s.history.Rules.MinSpan, now.Sub(s.proved)
	switch {
	case othersWait:
		return since >= span/proofsASpan
	case kept == 0 || v.Pending() == 0:
		return false
	case kept > fewControls:
		return since >= span/time.Duration(kept)
	}
	tries, left := s.history.Missing(v, kept, now)
	hopeless := func(v *verdict.Suspect) bool {
		tries, _ := s.history.Missing(v, kept, now)
		return tries+v.Pending() > kept*verdict.MaxPending
	}
	untried := func(v *verdict.Suspect) bool { return v.Pending() == 0 }
	switch {
	case !slices.ContainsFunc(tried, func(v *verdict.Suspect) bool { return !hopeless(v) }):
		return true // they would be kept in vain
	case slices.ContainsFunc(tried, untried):
		return false
	case kept == 1:
		return tries == 0 && left == 0
	}
	run := min(verdict.MaxPending, (tries+v.Pending()+kept-1)/kept)
	return v.Pending() >= run && since >= left/time.Duration(kept)
}
