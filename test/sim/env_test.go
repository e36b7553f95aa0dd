package sim_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/bundle"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// trickle is how many messages a worker pulls at once while it looks for events to try.
const trickle = 10

// self is the service id of a worker's own streams.
const self = "telemetry-relay"

const refusedService = "refused"

// env is one simulated run.
type env struct {
	t         *testing.T
	seed      uint64
	nowPlan   atomic.Pointer[plan] // the present faults; none when it is calm
	drawn     plan                 // as it was drawn
	began     time.Time
	sub       *subscription
	sams      *sams
	ledger    *ledger
	publisher bundle.Publisher
	streams   atomic.Int32 // to the gateway, in flight
	decoder   *event.Decoder
	metrics   *metrics.Metrics
	log       *slog.Logger

	mu         sync.Mutex
	rng        *rand.Rand
	violations []string
	rows       map[string]int
	last       int // number of events that are published at the end
}

var services = mustServices()

func mustServices() *policy.Set {
	// The services of the "many publishers" are not listed.
	var listed []*policy.Service
	for _, id := range []string{"alpha", "beta", "hanging", "honest", refusedService, self} {
		listed = append(listed, &policy.Service{ID: id})
	}
	set, err := policy.NewSet(listed, true)
	if err != nil {
		panic(err)
	}
	return set
}

func newEnv(t *testing.T, seed uint64, m *metrics.Metrics, log *slog.Logger) *env {
	w := &env{
		t: t, seed: seed, began: time.Now(), metrics: m, log: log,
		rng: rand.New(rand.NewPCG(seed, 1)), rows: map[string]int{},
		decoder: event.NewDecoder(services, "sim"),
	}
	w.drawn = newPlan(w.rng)
	w.nowPlan.Store(&w.drawn)
	w.sub = newSubscription(w)
	w.sams = &sams{w: w, tokens: map[string]time.Time{}}
	w.ledger = newLedger(w)
	w.publisher.Lose = w.lose
	return w
}

func (w *env) child() *rand.Rand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()))
}

func (w *env) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *env) shuffle(n int, swap func(i, j int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rng.Shuffle(n, swap)
}

func (w *env) now() time.Duration { return time.Since(w.began) }

func (w *env) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf("%v: ", w.now())+fmt.Sprintf(format, args...))
}

// met counts a fault of the table of faults.
func (w *env) met(row string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows[row]++
}

// pulled checks that a worker pulls nothing after it has known of an outage of the gateway
// for long.
func (w *env) pulled(by *worker, now time.Time) {
	at := now.Sub(w.began)
	for _, outage := range []window{w.plan().down, w.plan().denied, w.plan().samsDown} {
		if !outage.at(at) || by.unavailableSince.IsZero() || now.Sub(by.unavailableSince) < long {
			continue
		}
		// A worker that needs other events to try may pull a few.
		if by.pulled++; by.pulled > 2*trickle {
			w.violation("%d messages were pulled %v after the outage was known", by.pulled, now.Sub(by.unavailableSince))
		}
	}
}

// nacked checks that a message is nacked at most once in an outage.
func (w *env) nacked(by *worker, m *message) {
	now := time.Now()
	if last, ok := m.released[by]; ok && now.Sub(last) < 9*time.Minute && !by.stopping.Load() {
		w.violation("message %s was released again after %v", m.GetMessageId(), now.Sub(last))
	}
	if m.panics > 0 && m.kind == panicking && !by.stopping.Load() {
		w.violation("message %s was released at once although its processing panics", m.GetMessageId())
	}
	m.released[by] = now
	w.met("released")
}

// worker is one process.
type worker struct {
	env              *env
	dead             chan struct{} // closed when it is killed
	stopping         atomic.Bool
	pulls            atomic.Int32 // of single pulls
	started          time.Duration
	unavailableSince time.Time // since when the gateway has refused everything; guarded by the subscription's mu
	pulled           int       // messages pulled in outages that were known for long
	refusedAt        time.Time // when a probe failed last
	stop             context.CancelFunc
	done             chan struct{}
	summary          relay.Summary
	err              error
}

// pause waits as a network does. A killed process gets no answer.
func (w *worker) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-w.dead:
	}
	return w.alive(ctx)
}

func (w *worker) alive(ctx context.Context) error {
	select {
	case <-w.dead:
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	default:
		return nil
	}
}

// net is one request over a network that may be down.
func (w *worker) net(ctx context.Context, outage window) error {
	if err := w.pause(ctx, time.Duration(1+w.env.draw(10))*time.Millisecond); err != nil {
		return err
	}
	if outage.at(w.env.now()) {
		w.env.met("connection down")
		return status.Error(codes.Unavailable, "connection refused")
	}
	return nil
}

// frozen waits while the server is frozen.
func (w *worker) frozen(ctx context.Context, during window) error {
	if now := w.env.now(); during.at(now) {
		w.env.met("Pub/Sub frozen")
		return w.pause(ctx, during.end-now)
	}
	return nil
}

// start starts a worker; a drain ends by itself.
func (w *env) start(drain bool, window time.Duration) *worker {
	k := &worker{env: w, dead: make(chan struct{}), done: make(chan struct{}), started: w.now()}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(context.Background())
	tokens := submit.NewTokens(submit.TokenOptions{Fetch: w.sams.fetch(k)})
	client := submit.NewClientOver(gateway{k}, submit.Options{
		Timeout: 10 * time.Second, Tokens: tokens, Self: event.Publisher{ServiceID: self, Environment: "sim"},
	})
	s := w.plan().settings
	r := relay.New(port{w.sub, k}, client, dlq.NewWriter(dlqTopic{k}, dlq.Origin{Subscription: "sim", WorkerVersion: "sim"}), relay.Options{
		Batch:           batch.Limits{Events: s.batchEvents, Bytes: 1 << 20, Delay: s.batchDelay},
		Streams:         s.concurrency,
		MaxStreams:      64,
		RejectAfter:     s.rejectAfter,
		Consume:         consume.Options{MaxEvents: s.outstanding, MaxBytes: 1 << 30, Streams: 2},
		Drain:           drain,
		DrainIdle:       15 * time.Second,
		ReceiveWindow:   window,
		ShutdownTimeout: 8 * time.Second,
		Services:        services,
		Environment:     "sim",
		Decode:          w.decode,
		Seed:            w.seed + 1,
		OnProgress: func(p relay.Progress) {
			if p.InFlight > s.outstanding+2*40 {
				w.violation("%d events are in flight, the bound is %d", p.InFlight, s.outstanding)
			}
			if !p.Balanced(p.InFlight + p.Redelivered) {
				w.violation("the accounting does not balance: %+v", p)
			}
		},
		Metrics: w.metrics,
		Logger:  w.log,
	})
	go func() {
		defer close(k.done)
		k.summary, k.err = r.Run(ctx)
		k.stopping.Store(true)
		tokens.Close()
		if lived := (w.now() - k.started).Seconds(); float64(k.pulls.Load()) > 10+4*lived {
			w.violation("a worker asked %d times for messages in %.0f s", k.pulls.Load(), lived)
		}
		if !k.summary.Balanced(0) {
			w.violation("the accounting does not balance: %+v", k.summary)
		}
	}()
	return k
}

// decode is the worker's decoder, with a bug for some messages.
func (w *env) decode(buf []byte, m event.Message) (event.Event, []byte, *event.Rejection) {
	if at := w.sub.get(m.ID); at != nil && at.kind == panicking {
		w.sub.mu.Lock()
		at.panics--
		broken := at.panics >= 0
		w.sub.mu.Unlock()
		if broken {
			w.met("panic")
			panic("a bug")
		}
	}
	return w.decoder.DecodeInto(buf, m)
}

// left checks that a worker that ended well has no messages in flight.
func (w *env) left(k *worker) {
	w.sub.mu.Lock()
	defer w.sub.mu.Unlock()
	now := time.Now()
	if at := w.now(); k.err != nil || w.plan().pubsubDown.at(at) || w.plan().pubsubFrozen.at(at) || w.plan().flaky.at(at) {
		return
	}
	for _, m := range w.sub.order {
		if !m.acked && m.holder == k && m.until.After(now) && m.kind != panicking {
			w.violation("message %s (%v) is still leased to a worker that has ended well", m.GetMessageId(), m.kind)
		}
	}
}

// holdsBad reports whether the worker ended with only bad events in flight. It cannot tell
// them from an outage as long as another worker gets all other events.
func (w *worker) holdsBad() bool {
	return w.env.plan().workers > 1 && strings.Contains(w.err.Error(), "records nothing")
}

// trouble reports whether the network or Pub/Sub has delayed requests since a time.
func (w *env) trouble(since time.Time) bool {
	from, to := since.Sub(w.began), w.now()
	for _, x := range []window{w.drawn.pubsubDown, w.drawn.pubsubFrozen, w.drawn.flaky, w.drawn.keyDisabled, w.drawn.pubsubSlow} {
		if x.begin <= to && from < x.end {
			return true
		}
	}
	return false
}

// clientRefused reports whether a worker ended because SAMS refused its client
// before the gateway had been reached for the first time.
func (w *env) clientRefused(k *worker) bool {
	var refused *submit.CredentialsError
	return errors.As(k.err, &refused)
}

func (w *worker) end() {
	w.stopping.Store(true)
	w.stop()
	<-w.done
	w.env.left(w)
}

// kill ends a worker as SIGKILL does: none of its later requests has an effect.
func (w *worker) kill() {
	w.stopping.Store(true)
	close(w.dead)
	w.stop()
	<-w.done
}

// publishAll publishes the plan's events over the time of the faults.
func (w *env) publishAll(ctx context.Context) {
	rng := w.child()
	gap := w.plan().length / time.Duration(w.plan().events+1)
	for n := range w.plan().events {
		if n == 1 && w.plan().loneBad {
			_ = retry.Sleep(ctx, 10*time.Second) // quiet traffic
		}
		w.publishOne(rng, n)
		if rng.IntN(4) == 0 {
			if retry.Sleep(ctx, time.Duration(rng.Int64N(int64(4*gap)+1))) != nil {
				return
			}
		}
	}
}

func (w *env) publishOne(rng *rand.Rand, n int) {
	service := []string{"alpha", "beta", "hanging"}[rng.IntN(3)]
	if w.plan().many {
		service = fmt.Sprintf("many-%d", rng.IntN(500))
		w.met("many publishers")
	}
	k, body := healthy, data(n, eventID(n))
	switch rng.IntN(40) {
	case 0:
		k, body = malformed, []byte("[]")
	case 1:
		k = leftOut
	case 2:
		k = refused
	case 3:
		k = undecodable
	case 4:
		k, service = foreign, refusedService
	case 5:
		k = panicking
	case 6:
		body = data(n, "") // a derived id
	}
	if n == 0 && w.plan().loneBad {
		w.met("one bad event in quiet traffic")
		k, body, service = leftOut, data(n, eventID(n)), "alpha"
	}
	publish := func(k kind, body []byte) {
		m := w.sub.publish(k, &pubsubpb.PubsubMessage{Data: body, Attributes: map[string]string{"service_id": service, "service_environment": "sim"}})
		w.ledger.published(m)
	}
	publish(k, body)
	if k == healthy && rng.IntN(10) == 0 {
		w.met("the same event twice")
		publish(k, body)
	}
	if k == healthy && rng.IntN(15) == 0 {
		w.met("different events with one id")
		publish(k, data(n+1_000_000, eventID(n)))
	}
}

// play is the whole run: workers start and stop during the faults. Then all faults end, a
// last worker drains the subscription, and the account is closed.
func (w *env) play() {
	ctx, cancel := context.WithCancel(context.Background())
	var publishing sync.WaitGroup
	publishing.Go(func() { w.publishAll(ctx) })

	workers := make([]*worker, w.plan().workers)
	for i := range workers {
		workers[i] = w.start(false, 0)
	}
	slices.SortFunc(w.plan().moments, func(a, b moment) int { return int(a.at - b.at) })
	for _, m := range w.plan().moments {
		time.Sleep(m.at - w.now())
		w.happen(m.do, workers)
	}
	if w.plan().length > w.now() {
		time.Sleep(w.plan().length - w.now())
	}
	publishing.Wait()
	w.calm()
	w.recover()
	w.stalled(workers)
	for _, k := range workers {
		w.met("stopped by a signal")
		k.end()
		if k.err != nil && !k.holdsBad() && !w.clientRefused(k) {
			w.violation("a worker that was stopped while all is well fails: %v", k.err)
		}
		if k.summary.Ended != relay.Signal && !w.clientRefused(k) {
			w.violation("a worker that was stopped ends with %q", k.summary.Ended)
		}
	}
	w.drain()
	cancel()
	w.ledger.close()
}

// happen executes a moment of the plan.
func (w *env) happen(do string, workers []*worker) {
	i := w.draw(len(workers))
	switch do {
	case "revoke":
		w.sams.revokeAll()
	case "lose leases":
		w.sub.loseLeases(0.3)
	case "lose all leases":
		w.sub.loseLeases(1)
	case "cut streams":
		w.sub.cut()
	case "silence streams":
		w.sub.goSilent()
	case "kill":
		w.met("killed")
		workers[i].kill()
		workers[i] = w.start(false, 0)
	case "stop":
		w.met("stopped while things go wrong")
		workers[i].end()
		workers[i] = w.start(false, 0)
	case "break":
		// A job reaches its deadline during the moment.
		w.met("deadline")
		workers[i].end()
		job := w.start(true, time.Duration(1+w.draw(60))*time.Second)
		<-job.done
		if e := job.summary.Ended; e != relay.Deadline && e != relay.Drained && !w.clientRefused(job) {
			w.violation("a job ends with %q: %v", e, job.err)
		}
		if quiet := time.Since(job.refusedAt); job.summary.Ended == relay.Drained && quiet < 15*time.Second {
			w.violation("a job took the subscription for empty %v after a probe had failed", quiet)
		}
		if job.summary.Ended == relay.Deadline && job.err != nil {
			w.met("deadline during an outage")
		}
		workers[i] = w.start(false, 0)
	}
}

// plan returns the present faults.
func (w *env) plan() *plan { return w.nowPlan.Load() }

// calm ends all faults.
func (w *env) calm() {
	d := w.drawn
	w.nowPlan.Store(&plan{settings: d.settings, many: d.many, listsOnce: d.listsOnce, length: d.length, workers: d.workers})
}

// recover lets the workers handle the remaining events, with some quiet traffic, because
// only other recorded events distinguish a bad event from an outage.
func (w *env) recover() {
	for n := 0; n < 4 || (n < 200 && len(w.sub.unacked()) > 0); n++ {
		w.last++
		m := w.sub.publish(healthy, &pubsubpb.PubsubMessage{
			Data: data(w.last, eventID(2_000_000+w.last)), Attributes: map[string]string{"service_id": "alpha", "service_environment": "sim"},
		})
		w.ledger.published(m)
		time.Sleep(5 * time.Second)
	}
}

// stalled checks that the workers have received all messages of long ago, if all of them
// still run. A message without a lease has waited without a reason.
func (w *env) stalled(workers []*worker) {
	for _, k := range workers {
		if k.stopping.Load() {
			return // it has ended, because SAMS refused its client at the start
		}
	}
	now := time.Now()
	for _, m := range w.sub.unacked() {
		w.sub.mu.Lock()
		waiting := m.kind == healthy && m.until.IsZero() && m.deliveries == 0
		w.sub.mu.Unlock()
		if waited := now.Sub(m.GetPublishTime().AsTime()); waiting && waited > 5*time.Minute {
			w.violation("message %s has waited for %v without having been received", m.GetMessageId(), waited)
		}
	}
}

// drain lets a last worker find the subscription empty.
func (w *env) drain() {
	k := w.start(false, 0)
	w.recover()
	k.end()
	if k.err != nil {
		w.violation("a worker alone, while all is well, fails: %v", k.err)
	}
	k = w.start(true, time.Hour)
	<-k.done
	if k.err != nil || k.summary.Ended != relay.Drained {
		w.violation("the last drain ended with %q: %v", k.summary.Ended, k.err)
	}
}
