package sim_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/bundle"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// sams is a simulated SAMS.
type sams struct {
	w *env

	mu     sync.Mutex
	n      int
	tokens map[string]time.Time // active tokens, and when they expire
}

func (s *sams) fetch(w *worker) func(context.Context) (*oauth2.Token, error) {
	return func(ctx context.Context) (*oauth2.Token, error) {
		if err := w.pause(ctx, time.Duration(1+s.w.draw(20))*time.Millisecond); err != nil {
			return nil, err
		}
		now := s.w.now()
		if s.w.plan().samsSlow.at(now) {
			s.w.met("SAMS slow")
			if err := w.pause(ctx, time.Duration(1+s.w.draw(14))*time.Second); err != nil {
				return nil, err
			}
		}
		if s.w.plan().samsDown.at(now) {
			s.w.met("SAMS down")
			return nil, errors.New("connection refused")
		}
		// A worker that starts would take this for a fault of its configuration.
		if s.w.plan().badClient.at(now) && w.started < s.w.plan().badClient.begin {
			s.w.met("client refused by SAMS")
			return nil, &submit.CredentialsError{Status: 401, Code: "invalid_client"}
		}
		life := time.Hour
		if s.w.plan().shortTokens {
			s.w.met("short-lived token")
			life = time.Duration(3+s.w.draw(20)) * time.Second
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n++
		token := "sams_at_" + strconv.Itoa(s.n)
		s.tokens[token] = time.Now().Add(life)
		return &oauth2.Token{AccessToken: token, Expiry: time.Now().Add(life)}, nil
	}
}

func (s *sams) active(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.tokens[token]
	return ok && time.Now().Before(until)
}

func (s *sams) revokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) > 0 {
		s.w.met("tokens revoked")
	}
	clear(s.tokens)
}

// gateway is a simulated Telemetry Gateway, as one worker reaches it.
type gateway struct {
	w *worker
}

func (g gateway) Close() error { return nil }

func (g gateway) Exchange(ctx context.Context, token string, b submit.Batch, answer *submit.Listing) error {
	listed, err := g.exchange(ctx, token, b)
	if listed != nil {
		answer.Answer()
	}
	for _, id := range g.w.env.answer(b, listed) {
		answer.List([]byte(id))
	}
	result, collisions := answer.Result()
	if len(collisions) > 0 {
		g.w.env.met("an answer that lists some events of one id")
	}
	g.w.env.ledger.answered(g.w, b, result)
	g.w.env.sub.mu.Lock()
	defer g.w.env.sub.mu.Unlock()
	if err != nil && b.Publisher.ServiceID == self {
		g.w.refusedAt = time.Now()
	}
	switch {
	case err == nil:
		g.w.unavailableSince = time.Time{}
	case g.w.unavailableSince.IsZero():
		g.w.unavailableSince = time.Now()
	}
	return err
}

// answer returns the ids that the gateway lists: one for each event that it has recorded,
// in any order.
func (w *env) answer(b submit.Batch, listed []bool) (ids []string) {
	for i, ok := range listed {
		id := string(b.Events[i].ID())
		switch {
		case !ok:
		case w.plan().listsOnce && slices.Contains(ids, id):
			w.met("an id of several events listed once")
		default:
			ids = append(ids, id)
		}
	}
	w.shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids
}

func (g gateway) exchange(ctx context.Context, token string, b submit.Batch) ([]bool, error) {
	w := g.w.env
	pause := time.Duration(1+w.draw(30)) * time.Millisecond
	if exact := w.plan().latency; exact > 0 {
		pause = exact
	}
	if err := g.w.pause(ctx, pause); err != nil {
		return nil, err
	}
	w.ledger.batch(b)
	now := w.now()
	streams := w.streams.Add(1)
	defer w.streams.Add(-1)
	switch {
	case w.plan().atCapacity.at(now) && int(streams) > w.plan().capacity:
		w.met("no capacity for a stream")
		return nil, w.fault(codes.ResourceExhausted)
	case w.plan().down.at(now):
		w.met("gateway down: " + w.plan().downCode.String())
		if now == 0 || w.plan().down.from(0) {
			w.met("gateway down at the start")
		}
		return nil, w.fault(w.plan().downCode)
	case w.plan().hang.at(now), w.plan().hangOne.at(now) && b.Publisher.ServiceID == "hanging":
		w.met("gateway hangs")
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case w.plan().slow.at(now):
		w.met("gateway slow")
		if err := g.w.pause(ctx, time.Duration(w.draw(25))*time.Second); err != nil {
			return nil, err
		}
	case w.plan().denied.at(now):
		w.met("credentials refused")
		return nil, w.fault(codes.PermissionDenied)
	}
	if !w.sams.active(token) {
		w.met("token refused")
		return nil, status.Error(codes.Unauthenticated, "token")
	}
	if b.Publisher.ServiceID == refusedService {
		w.met("identity refused")
		return nil, status.Error(codes.InvalidArgument, "identity")
	}
	if len(b.Events) == 0 {
		return nil, nil
	}
	if w.plan().broken.at(now) {
		w.met("only streams with events fail")
		return nil, w.fault(w.plan().downCode)
	}
	return g.record(ctx, b, now)
}

// record decides which events are recorded.
func (g gateway) record(ctx context.Context, b submit.Batch, now time.Duration) ([]bool, error) {
	w := g.w.env
	for _, e := range b.Events {
		switch w.ledger.kindOf(b.Publisher, e) {
		case refused:
			w.met("event refused")
			return nil, status.Error(codes.InvalidArgument, "event")
		case undecodable:
			w.met("event that cannot be decoded")
			return nil, status.Error(codes.Internal, "cannot decode")
		default:
		}
	}
	listed := make([]bool, len(b.Events))
	if w.plan().silent.at(now) {
		w.met("nothing recorded")
		if len(b.Events) == 1 {
			w.met("nothing recorded of a single event")
		}
		return listed, nil
	}
	if w.plan().halfBroken.at(now) && w.draw(3) == 0 {
		w.met("one of three instances cannot publish")
		return listed, nil
	}
	if w.plan().publishing {
		if err := g.w.pause(ctx, time.Duration(100+w.draw(400))*time.Millisecond); err != nil {
			return nil, err
		}
	}
	published, err := w.publishBundled(ctx, b)
	if err != nil {
		return nil, err
	}
	flaky := w.plan().flaky.at(now)
	cutAt := -1
	if flaky && w.draw(6) == 0 {
		cutAt = w.draw(len(b.Events) + 1)
		w.met("stream cut midway")
	}
	for i, e := range b.Events {
		if i == cutAt {
			break
		}
		if !published[i] {
			continue
		}
		w.ledger.recorded(b.Publisher, e)
		// The event was recorded, but the backend's answer got lost.
		listed[i] = !flaky || !w.ledger.omitOnce(b.Publisher, e)
	}
	if cutAt >= 0 {
		if w.draw(2) == 0 {
			return nil, w.fault(codes.Unavailable)
		}
		return listed, w.fault(codes.Unavailable)
	}
	return listed, nil
}

// publishBundled publishes a payload in bundles with those of other streams, and
// returns which of its events were published.
func (w *env) publishBundled(ctx context.Context, b submit.Batch) ([]bool, error) {
	published := make([]bool, len(b.Events))
	var messages []bundle.Message
	var places []int
	for i, e := range b.Events {
		m := bundle.Message{ID: string(e.ID())}
		if w.ledger.kindOf(b.Publisher, e) == leftOut {
			w.met("event left out")
			if e.UUID[15]%2 == 0 {
				continue // left out by the gateway itself, without effect on other events
			}
			m.Refused = true
		}
		messages, places = append(messages, m), append(places, i)
	}
	if w.plan().latency > 0 {
		for n, m := range messages {
			published[places[n]] = !m.Refused
		}
		return published, nil
	}
	outcome, err := w.publisher.Publish(ctx, messages)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	for i, ok := range outcome {
		published[places[i]] = ok
	}
	return published, nil
}

// lose decides whether a publish request of the gateway fails.
func (w *env) lose(messages []bundle.Message) bool {
	for _, m := range messages {
		if m.Refused && len(messages) > 1 {
			w.met("event left out beside another one")
		}
	}
	if !w.plan().lossy.at(w.now()) || w.draw(100) >= w.plan().lostShare {
		return false
	}
	w.met(fmt.Sprintf("%d %% of publish requests lost", w.plan().lostShare))
	return true
}

// fault returns an error, sometimes with a delay that the server asks for.
func (w *env) fault(code codes.Code) error {
	st := status.New(code, fmt.Sprintf("simulated %s", code))
	if w.draw(3) == 0 {
		w.met("server's delay")
		if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(w.draw(4)) * time.Second)}); err == nil {
			st = with
		}
	}
	return st.Err()
}
