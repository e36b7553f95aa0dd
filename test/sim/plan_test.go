package sim_test

import (
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

// window is a part of the simulated time, in offsets from its beginning.
type window struct{ begin, end time.Duration }

func (w window) at(now time.Duration) bool     { return now >= w.begin && now < w.end }
func (w window) from(begin time.Duration) bool { return w.end > 0 && w.begin == begin }

// plan is everything that is drawn from a seed: the published events, the faults and their
// times, and the operator's actions.
type plan struct {
	length time.Duration // of the time in which faults happen

	// broken: streams with events fail, those without events succeed.
	broken                                    window
	noFlow                                    bool // Pub/Sub keeps no flow control, like an emulator
	down, hang, hangOne, slow, silent, denied window
	downCode                                  codes.Code
	samsDown, samsSlow, badClient             window
	pubsubDown, pubsubFrozen, dlqDown         window
	// refusals: Pub/Sub refuses two of three streams; keyDisabled: it refuses all settlements.
	refusals, keyDisabled, pubsubSlow window
	refusalCode                       codes.Code
	exactlyOnce                       bool
	// flaky: answers get lost, streams are cut.
	flaky window
	// lossy: a share of the gateway's publish requests is lost, in percent.
	lossy     window
	lostShare int
	// publishing: each payload takes the gateway 100 to 500 ms, like the real one.
	publishing bool
	// atCapacity: the gateway refuses streams beyond its capacity.
	atCapacity window
	capacity   int
	// halfBroken: one of three instances of the gateway publishes nothing.
	halfBroken  window
	shortTokens bool
	// latency: each answer of the gateway takes exactly this long, nothing is bundled, and
	// Pub/Sub delivers 1,000 messages at a time; 0 means the usual behaviour.
	latency time.Duration
	// listsOnce: the gateway lists an id once, however many events with this id it has
	// recorded. The real one does not; another one may.
	listsOnce bool

	events   int
	loneBad  bool // the first event is one that the gateway leaves out, alone
	many     bool // publishers
	workers  int
	settings settings

	moments []moment // things that happen at a time, in order
}

// settings are the settings of the worker that vary.
type settings struct {
	batchEvents int
	batchDelay  time.Duration
	concurrency int
	rejectAfter int
	outstanding int
}

// adapts is the concurrency of a worker that adapts it to the gateway.
const adapts = 0

type moment struct {
	at time.Duration
	do string
}

var passingCodes = []codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.DeadlineExceeded}

// refusalCodes are those with which Pub/Sub refuses a stream for a while.
var refusalCodes = []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented}

func newPlan(rng *rand.Rand) plan {
	p := plan{
		length:   time.Duration(20+rng.IntN(100)) * time.Second,
		downCode: passingCodes[rng.IntN(len(passingCodes))],
		events:   10 + rng.IntN(120),
		workers:  1 + rng.IntN(2),
		settings: settings{
			batchEvents: 1 + rng.IntN(30),
			batchDelay:  time.Duration(rng.IntN(3)) * 400 * time.Millisecond,
			concurrency: []int{adapts, adapts, adapts, 1, 2, 4, 8}[rng.IntN(7)],
			rejectAfter: 1 + rng.IntN(5),
			outstanding: 30 + rng.IntN(200)/4,
		},
		shortTokens: rng.IntN(4) == 0,
		listsOnce:   rng.IntN(8) == 0,
		loneBad:     rng.IntN(10) == 0,
		many:        rng.IntN(15) == 0,
	}
	long := rng.IntN(20) == 0
	if long {
		p.length = time.Duration(20+rng.IntN(40)) * time.Minute
	}
	storm := rng.IntN(4) == 0 // many faults at once
	draw := func(oneIn int) window {
		if storm {
			oneIn = 2
		}
		if rng.IntN(oneIn) != 0 {
			return window{}
		}
		begin := time.Duration(rng.Int64N(int64(p.length)))
		if rng.IntN(4) == 0 {
			begin = 0
		}
		return window{begin, begin + time.Duration(rng.Int64N(int64(p.length-begin)+1))}
	}
	p.broken, p.noFlow = draw(8), rng.IntN(2) == 0
	p.down, p.hang, p.hangOne, p.slow = draw(3), draw(10), draw(6), draw(8)
	p.silent, p.denied = draw(3), draw(8)
	p.samsDown, p.samsSlow, p.badClient = draw(8), draw(8), draw(12)
	if p.badClient.begin == 0 {
		p.badClient = window{} // the fault would look like one of configuration, and end the run
	}
	p.pubsubDown, p.pubsubFrozen, p.dlqDown, p.flaky = draw(6), draw(8), draw(4), draw(3)
	p.refusals, p.keyDisabled, p.pubsubSlow = draw(6), draw(10), draw(6)
	p.refusalCode = refusalCodes[rng.IntN(len(refusalCodes))]
	p.exactlyOnce = rng.IntN(5) == 0
	p.lossy, p.lostShare, p.halfBroken = draw(4), []int{30, 50, 80, 95}[rng.IntN(4)], draw(8)
	p.publishing = rng.IntN(6) == 0
	p.atCapacity, p.capacity = draw(6), 1+rng.IntN(8)
	for range rng.IntN(6) {
		do := []string{"revoke", "lose leases", "lose all leases", "cut streams", "silence streams", "kill", "stop", "break"}[rng.IntN(8)]
		p.moments = append(p.moments, moment{time.Duration(rng.Int64N(int64(p.length))), do})
	}
	return p
}
