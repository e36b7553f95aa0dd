package relay

import "testing"

// TestEventAtFaultForFailingStreams has an event whose streams fail again and again
// although it is alone in them, and says after how many of them it is at fault.
func TestEventAtFaultForFailingStreams(t *testing.T) {
	recorded := func(h *streamHistory) { h.tick(); h.recorded() }
	othersFail := func(h *streamHistory) { h.tick(); h.othersFailed() }
	for _, test := range []struct {
		name        string
		rejectAfter int
		// before happens once, between after each of the failures.
		before, between []func(*streamHistory)
		failing         int // other events that fail alone at the same time
		refusal         refusal
		want            int // failures; 0: not within a hundred
	}{
		{name: "others are recorded between its failures", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded}, want: 3},
		{name: "WORKER_REJECT_AFTER asks for more", rejectAfter: 5, before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded}, want: 5},
		{name: "connections fail so by chance", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded}, refusal: refusal{transport: true}, want: 7},
		{name: "nothing is recorded in between: an outage may have begun", before: []func(*streamHistory){recorded}, want: 6},
		{name: "nothing was ever recorded", want: 0, refusal: refusal{since: 1}},
		{name: "other streams fail, too", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded, othersFail}, want: 0},
		{name: "other streams failed before the last recording", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){othersFail, recorded}, want: 0},
		{name: "slowness looks so", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded}, refusal: refusal{timedOut: true}, want: 0},
		{name: "a gateway at its capacity", before: []func(*streamHistory){recorded}, between: []func(*streamHistory){recorded}, refusal: refusal{capacity: true}, want: 0},
		{name: "five others fail alone: an outage", before: []func(*streamHistory){recorded}, failing: 5, want: 0},
		{name: "four others fail alone", before: []func(*streamHistory){recorded}, failing: 4, want: 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &streamHistory{rejectAfter: test.rejectAfter}
			for _, do := range test.before {
				do(h)
			}
			for range test.failing {
				h.cutOutFailed(&refusals{})
			}
			var of refusals
			got := 0
			for n := 1; n <= 100; n++ {
				h.tick()
				h.cutOutFailed(&of)
				if h.atFault(&of, test.refusal) {
					got = n
					break
				}
				for _, do := range test.between {
					do(h)
				}
			}
			if got != test.want {
				t.Errorf("at fault after %d failures, want %d", got, test.want)
			}
		})
	}
}

// TestRefusedStreamsAreProven has streams that the gateway refuses while it takes streams
// without the event, and says after how many of them the event is at fault.
func TestRefusedStreamsAreProven(t *testing.T) {
	recorded := func(h *streamHistory, _ *refusals) { h.tick(); h.recorded() }
	for _, test := range []struct {
		name    string
		between []func(*streamHistory, *refusals) // after each refusal
		atOnce  int                               // streams that are refused in the same moment; 0: one
		want    int                               // moments; 0: not within a hundred
	}{
		{name: "nothing else is recorded", want: 6},
		{name: "others are recorded between its refusals", between: []func(*streamHistory, *refusals){recorded}, want: 6},
		{name: "many streams of an identity are refused at once", atOnce: 8, want: 6},
		{name: "other streams fail", between: []func(*streamHistory, *refusals){
			recorded, func(h *streamHistory, _ *refusals) { h.tick(); h.othersFailed() },
		}, want: 0},
		{name: "another event is recorded that was refused alone", between: []func(*streamHistory, *refusals){
			func(h *streamHistory, _ *refusals) {
				var other refusals
				h.tick()
				h.refused(&other, h.clock)
				h.tick()
				h.refusedButRecorded(&other)
				h.recorded()
			},
		}, want: 0},
		{name: "the identity is taken in between", between: []func(*streamHistory, *refusals){
			func(h *streamHistory, of *refusals) { h.tick(); h.refusedButRecorded(of); h.recorded() },
		}, want: 0},
		{name: "others are recorded that were not refused", between: []func(*streamHistory, *refusals){
			func(h *streamHistory, _ *refusals) { h.tick(); h.refusedButRecorded(&refusals{}); h.recorded() },
		}, want: 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &streamHistory{}
			var of refusals
			got := 0
			for n := 1; n <= 100 && got == 0; n++ {
				started := h.tick()
				for range max(1, test.atOnce) {
					h.tick()
					if h.refused(&of, started) {
						got = n
					}
				}
				for _, do := range test.between {
					do(h, &of)
				}
			}
			if got != test.want {
				t.Errorf("at fault after %d moments, want %d", got, test.want)
			}
		})
	}
}
