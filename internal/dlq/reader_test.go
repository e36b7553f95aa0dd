package dlq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

const (
	mainTopic = "projects/p/topics/events"
	mainSub   = "projects/p/subscriptions/ledger"
	dlqTopic  = "projects/p/topics/events-dlq"
	dlqSub    = "projects/p/subscriptions/events-dlq-oncall"
)

// queueEnv is an embedded Pub/Sub with a topic and a dead-letter queue.
type queueEnv struct {
	*pubsubserver.Server
	t testing.TB
}

func newQueueEnv(t testing.TB) *queueEnv {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{PullWait: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	e := &queueEnv{s, t}
	e.must(s.CreateTopic(mainTopic))
	e.must(s.CreateTopic(dlqTopic))
	e.must(s.CreateSubscription(mainSub, mainTopic))
	e.must(s.CreateSubscription(dlqSub, dlqTopic))
	return e
}

func (e *queueEnv) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *queueEnv) options() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(e.Addr()), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func (e *queueEnv) open(opts QueueOptions) *Queue {
	e.t.Helper()
	client, err := NewClient(e.t.Context(), dlqSub, e.options()...)
	e.must(err)
	e.t.Cleanup(func() { client.Close() })
	if opts.WaitingPull == 0 {
		opts.WaitingPull = 60 * time.Millisecond
	}
	q := Open(client, opts)
	e.t.Cleanup(func() { q.Close() })
	return q
}

// write dead-letters messages.
func (e *queueEnv) write(messages ...*DeadLetter) {
	e.t.Helper()
	client, err := topic.NewClient(e.t.Context(), dlqTopic, e.options()...)
	e.must(err)
	defer client.Close()
	for _, err := range NewWriter(client, origin).Write(e.t.Context(), messages) {
		e.must(err)
	}
}

// wantUnleased requires this many messages in the queue, none of them leased.
func (e *queueEnv) wantUnleased(want int) {
	e.t.Helper()
	if got := e.Stats(dlqSub); got.Backlog != want || got.Leased != 0 {
		e.t.Errorf("the queue has %d messages and %d are leased, want %d and none", got.Backlog, got.Leased, want)
	}
}

// valid makes dead-lettered messages whose events the worker would accept now.
func valid(n int) []*DeadLetter {
	all := make([]*DeadLetter, n)
	for i := range all {
		all[i] = deadLetter(fmt.Sprintf(`{"feature":"a.b","action":"c","metadata":{"n":%d}}`, i), map[string]string{"service_id": "sams"})
		all[i].MessageID = fmt.Sprintf("m%d", i)
	}
	return all
}

func asStored(t testing.TB, l *DeadLetter) *Stored {
	t.Helper()
	m := mustBuild(t, l)
	m.MessageId, m.PublishTime = "99", timestamppb.New(published.Add(time.Hour))
	return Read(m, "dev")
}

func checkOriginal(t testing.TB, l *DeadLetter, s *Stored) {
	t.Helper()
	if s.Broken != nil {
		t.Fatal(s.Broken)
	}
	if !bytes.Equal(l.Data, s.Original.Data) {
		t.Errorf("restored %d bytes that are not the original %d", len(s.Original.Data), len(l.Data))
	}
	want := ndjson.Message{Attributes: l.Attributes, OrderingKey: l.OrderingKey}
	got := ndjson.Message{Attributes: s.Original.Attributes, OrderingKey: s.Original.OrderingKey}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("restored is another message: %.2000s", diff)
	}
}

func TestReadRestoresTheOriginalMessage(t *testing.T) {
	for _, c := range []struct {
		name    string
		message *DeadLetter
	}{
		{"plain", deadLetter(`{"feature":"a"}`, map[string]string{"service_id": "sams"})},
		{"binary", deadLetter("\xff\x00\x1f\x8b", nil)},
		{"nothing", deadLetter("", nil)},
		{"100 attributes", deadLetter("{}", many(100))},
		{"names of ours", deadLetter("{}", map[string]string{"dlq_reason": "mine", "replay_count": "x", "origin_message_id": "7"})},
		{"replayed", deadLetter("{}", replayed(nil))},
		{"compressed", deadLetter(strings.Repeat("a", 10_000_001), nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.message.OrderingKey = "key"
			s := asStored(t, c.message)
			checkOriginal(t, c.message, s)
			if s.Reason != event.InvalidEvent || s.OriginalID != "4711" || !s.OriginalPublishTime.Equal(published) ||
				!s.RejectedAt.Equal(rejectedAt) || s.ID != "99" || s.Environment != "dev" {
				t.Errorf("%+v", s)
			}
		})
	}
	if s := asStored(t, deadLetter("{}", replayed(nil))); s.Replays != 2 {
		t.Errorf("%d replays", s.Replays)
	}
}

// TestReadDeadLetteredMessageThatWasRejectedAgain: a worker that consumes the dead-letter
// queue by mistake rejects its messages again. Both originals must stay readable.
func TestReadDeadLetteredMessageThatWasRejectedAgain(t *testing.T) {
	inner := deadLetter(`{"feature":"Bad"}`, map[string]string{"service_id": "sams"})
	inner.OrderingKey = "k"
	first := mustBuild(t, inner)
	outer := deadLetter(string(first.GetData()), first.GetAttributes())
	s := asStored(t, outer)
	checkOriginal(t, outer, s)
	s = Read(&pubsubpb.PubsubMessage{Data: s.Original.Data, Attributes: s.Original.Attributes}, "dev")
	checkOriginal(t, inner, s)
}

func TestReadMessagesThatTheWorkerHasNotWritten(t *testing.T) {
	native := map[string]string{
		"service_id": "sams",
		"CloudPubSubDeadLetterSourceDeliveryCount":       "5",
		"CloudPubSubDeadLetterSourceSubscription":        "relay",
		"CloudPubSubDeadLetterSourceSubscriptionProject": "p",
		"CloudPubSubDeadLetterSourceTopicPublishTime":    "2026-11-20T09:00:00.123456789Z",
		"replay_count":   "1",
		"something_else": "x",
	}
	s := Read(&pubsubpb.PubsubMessage{MessageId: "5", Data: []byte(`{"feature":"a.b","action":"c"}`), Attributes: native, OrderingKey: "k"}, "dev")
	if s.Reason != ReasonAttempts || s.Attempts != 5 || !s.OriginalPublishTime.Equal(published) || s.OriginalID != "5" ||
		s.Feature != "a.b" || s.Replays != 1 || s.Original.OrderingKey != "k" || len(s.Original.Attributes) != 3 {
		t.Errorf("%+v", s)
	}
	for name, m := range map[string]*pubsubpb.PubsubMessage{
		"empty":                 {},
		"not JSON":              {Data: []byte("{nonsense")},
		"an array":              {Data: []byte("[1]")},
		"another's attribute":   {Attributes: map[string]string{"dlq_other": "1"}},
		"fields of other types": {Data: []byte(`{"feature":1,"action":{},"id":[]}`)},
	} {
		if s := Read(m, ""); s.Reason != ReasonUnknown || s.Broken != nil || !proto.Equal(m, &pubsubpb.PubsubMessage{
			Data: s.Original.Data, Attributes: s.Original.Attributes,
		}) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, attributes := range map[string]map[string]string{
		"no gzip":     {AttrEncoding: EncodingGzip},
		"no envelope": {AttrEncoding: EncodingEnvelope},
		"unknown":     {AttrEncoding: "zstd"},
	} {
		attributes[AttrReason] = "invalid_event"
		if s := Read(&pubsubpb.PubsubMessage{Data: []byte("x"), Attributes: attributes}, ""); s.Broken == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestDecompressionIsBounded: a compressed message that Pub/Sub could not have carried is
// not restored.
func TestDecompressionIsBounded(t *testing.T) {
	big(t)
	envelope := func(m ndjson.Message) []byte {
		text, err := ndjson.Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	wide := map[string]string{}
	for i := range 100 {
		wide[fmt.Sprintf("%0256d", i)] = strings.Repeat("\x01", maxValue) // six bytes each in an envelope
	}
	for name, c := range map[string]struct {
		encoding string
		content  []byte
		ok       bool
	}{
		"all that fits":       {EncodingGzip, make([]byte, maxMessageTried), true},
		"a byte more":         {EncodingGzip, make([]byte, maxMessageTried+1), false},
		"an envelope of that": {EncodingEnvelope, envelope(ndjson.Message{Data: make([]byte, maxMessageTried-1<<20), Attributes: wide}), true},
		"a huge service":      {EncodingEnvelope, envelope(ndjson.Message{Attributes: map[string]string{"service_id": strings.Repeat("a", 1<<20)}}), false},
		"20 MB of service":    {EncodingEnvelope, envelope(ndjson.Message{Attributes: map[string]string{"service_id": strings.Repeat("a", 20<<20)}}), false},
		"a huge key":          {EncodingEnvelope, envelope(ndjson.Message{Data: []byte("{}"), OrderingKey: strings.Repeat("a", 1<<20)}), false},
	} {
		bomb, err := compress(c.content)
		if err != nil {
			t.Fatal(err)
		}
		s := Read(&pubsubpb.PubsubMessage{Data: bomb, Attributes: map[string]string{AttrReason: "x", AttrEncoding: c.encoding}}, "")
		if (s.Broken == nil) != c.ok || !c.ok && len(s.Original.Data) != len(bomb) {
			t.Errorf("%s: %v, %d bytes", name, s.Broken, len(s.Original.Data))
		}
	}
}

func TestFilterMatchesAllFieldsThatAreSet(t *testing.T) {
	s := &Stored{
		ID: "own", OriginalID: "original", Reason: event.InvalidEvent, Service: "sams", Environment: "dev",
		Feature: "a.b", Action: "c", EventID: "e", RejectedAt: published, PublishTime: published,
	}
	for _, c := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{}, true},
		{Filter{Reasons: []string{"oversized", "invalid_event"}}, true},
		{Filter{Reasons: []string{"oversized"}}, false},
		{Filter{Services: []string{"sams"}, Environments: []string{"prod"}}, false},
		{Filter{Features: []string{"a.b"}, Actions: []string{"c"}, EventIDs: []string{"e"}}, true},
		{Filter{MessageIDs: []string{"own"}}, true},
		{Filter{MessageIDs: []string{"original"}}, true},
		{Filter{MessageIDs: []string{"e"}}, false},
		{Filter{Since: published}, true},
		{Filter{Since: published.Add(1)}, false},
		{Filter{Until: published}, true},
		{Filter{Until: published.Add(-1)}, false},
		{Filter{PublishedBefore: published}, false},
	} {
		if got := c.filter.Match(s); got != c.want {
			t.Errorf("%v: got %v", &c.filter, got)
		}
	}
}

func TestPointMarksTheFaultyField(t *testing.T) {
	shown := ViewOfData([]byte(`{"a":{"userId":1},"user":{"x":{"y":1},"userId":"1"},"z":1}`), false).String()
	got := Point(shown, Field("user.userId: expected an integer"))
	if want := `    "userId": "1",   <── here`; strings.Count(got, "here") != 1 || !strings.Contains(got, want) {
		t.Error(got)
	}
	if got := Point(shown, Field("attribute user: missing")); got != shown {
		t.Errorf("an attribute is marked in the data: %s", got)
	}
	for detail, want := range map[string]string{
		"attribute service_id: missing":   "attribute service_id",
		"feature: missing":                "feature",
		"service \"x\" may not: publish":  "",
		"malformed JSON at byte offset 1": "",
	} {
		if got := Field(detail); got != want {
			t.Errorf("%s: got %q", detail, got)
		}
	}
}

// walkAll reads the whole queue, and changes nothing.
func walkAll(ctx context.Context, q *Queue, f *Filter) (seen []string, w *Walk, err error) {
	w = &Walk{Queue: q, Filter: f}
	err = w.Each(ctx, func(s *Stored) error { seen = append(seen, s.OriginalID); return nil }, nil)
	return seen, w, err
}

func TestWalkReadsTheWholeQueue(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	e.write(valid(2500)...)
	q := e.open(QueueOptions{})
	seen, w, err := walkAll(t.Context(), q, &Filter{})
	if err != nil || len(seen) != 2500 || w.Read != 2500 || q.Leased() != 2500 {
		t.Fatalf("%d seen, %d leased, %v", len(seen), q.Leased(), err)
	}
	e.must(q.Close())
	e.wantUnleased(2500)

	q = e.open(QueueOptions{})
	seen, w, err = walkAll(t.Context(), q, &Filter{Limit: 10})
	if err != nil || len(seen) != 10 || w.Read != 2500 {
		t.Fatalf("%d seen, %d read, %v", len(seen), w.Read, err)
	}
	e.must(q.Remove(t.Context(), []string{"no such message"}))
	e.must(q.Close())
	e.wantUnleased(2500)
}

func TestWalkOfAnEmptyQueueEnds(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	q := e.open(QueueOptions{})
	if seen, _, err := walkAll(t.Context(), q, &Filter{}); err != nil || len(seen) != 0 {
		t.Errorf("%v, %v", seen, err)
	}
}

// TestWalkVisitsARedeliveredMessageOnce lets all leases expire while the walk runs.
func TestWalkVisitsARedeliveredMessageOnce(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	e.write(valid(10)...)
	q := e.open(QueueOptions{})
	w := &Walk{Queue: q, Filter: &Filter{}}
	count := 0
	err := w.Each(t.Context(), func(*Stored) error { count++; return nil }, func() error {
		e.ExpireLeases(dlqSub)
		return nil
	})
	if err != nil || count != 10 || q.again != 10 {
		t.Errorf("%d messages, %d redelivered, %v", count, q.again, err)
	}
	e.must(q.Close())
	e.wantUnleased(10)
}

func TestLeasesAreExtendedUntilClose(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	e.write(valid(5)...)
	renewed := make(chan int, 100)
	e.SetFault(func(method string, req any) error {
		if r, ok := req.(*pubsubpb.ModifyAckDeadlineRequest); ok && r.GetAckDeadlineSeconds() > 0 {
			select {
			case renewed <- len(r.GetAckIds()):
			default:
			}
		}
		return nil
	})
	q := e.open(QueueOptions{ExtendEvery: 20 * time.Millisecond})
	if _, err := q.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		select {
		case n := <-renewed:
			if n != 5 {
				t.Errorf("%d ids", n)
			}
		case <-time.After(time.Minute):
			t.Fatal("not renewed")
		}
	}
	e.must(q.Close())
	e.wantUnleased(5)
}

// TestHangingExtensionDelaysNoLaterOne has a Pub/Sub that never answers an extension. The
// queue must send further extensions nevertheless.
func TestHangingExtensionDelaysNoLaterOne(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	e.write(valid(5)...)
	q := e.open(QueueOptions{ExtendEvery: 20 * time.Millisecond})
	if _, err := q.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	e.SetFault(func(method string, req any) error {
		if r, ok := req.(*pubsubpb.ModifyAckDeadlineRequest); ok && r.GetAckDeadlineSeconds() > 0 {
			select {
			case asked <- struct{}{}:
			default:
			}
			return pubsubserver.ErrHang
		}
		return nil
	})
	for range 3 {
		select {
		case <-asked:
		case <-time.After(time.Minute):
			t.Fatal("not renewed")
		}
	}
	e.must(q.Close())
	e.wantUnleased(5)
}

func TestCancelledWalkReleasesItsMessages(t *testing.T) {
	t.Parallel()
	e := newQueueEnv(t)
	e.write(valid(1500)...)
	ctx, cancel := context.WithCancel(t.Context())
	q := e.open(QueueOptions{})
	w := &Walk{Queue: q, Filter: &Filter{}}
	err := w.Each(ctx, func(*Stored) error { cancel(); return nil }, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	e.must(q.Close())
	e.wantUnleased(1500)
}

func TestStatsGroupByNormalizedDetail(t *testing.T) {
	var stats Stats
	for i := range 6000 {
		s := asStored(t, deadLetter(fmt.Sprintf(`{"feature":"f%d"}`, i%2), nil))
		s.Detail = fmt.Sprintf("metadata.x: expected a number, got \"%d\"", i)
		s.Replays = i % 3
		stats.Add(s)
	}
	groups := stats.Groups()
	if len(groups) != 2 || groups[0].Count != 3000 || groups[0].ReplayedBefore != 2000 || stats.Count != 6000 || groups[0].Feature != "f0" {
		t.Errorf("%+v", groups)
	}
}
