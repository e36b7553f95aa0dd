package consume

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// within polls until ok or for d.
func within(d time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// delivers reports whether messages that are published now come within d, or whether
// receiving ends instead.
func delivers(t *testing.T, s *pubsubserver.Server, c *subject, d time.Duration) string {
	before := c.distinct()
	publish(t, s, 20)
	all := func() bool { return c.distinct() == before+20 }
	c.within(d, func() bool { return all() || c.over() })
	switch {
	case all():
		return goesOn
	case c.over():
		return ends
	default:
		return "receives nothing"
	}
}

// afterwards returns a play in which something happens once a client has received 20
// messages on four streams.
func afterwards(d time.Duration, happen func(s *pubsubserver.Server)) func(*testing.T, *pubsubserver.Server, start) string {
	return func(t *testing.T, s *pubsubserver.Server, begin start) string {
		c := begin(t, s, false)
		defer c.stop()
		publish(t, s, 20)
		if !within(patience, func() bool { return c.distinct() == 20 && s.Streams(subName) == 4 }) {
			return "does not begin"
		}
		happen(s)
		return delivers(t, s, c, d)
	}
}

// afterSilence returns how a client goes on whose streams are silent.
func afterSilence(t *testing.T, s *pubsubserver.Server, c *subject) string {
	result := delivers(t, s, c, time.Minute)
	switch {
	case result != goesOn:
		return result
	case c.official:
		return "goes on after 60 s or more"
	default:
		return "goes on within 60 s"
	}
}

// refusedOnce refuses the first opening of one of four streams with a code.
func refusedOnce(code codes.Code) func(*testing.T, *pubsubserver.Server, start) string {
	return oneRefused(func(s *pubsubserver.Server) { s.RefuseStreams(1, status.Error(code, "for a moment")) })
}

func oneRefused(refuse func(*pubsubserver.Server)) func(*testing.T, *pubsubserver.Server, start) string {
	return func(t *testing.T, s *pubsubserver.Server, begin start) string {
		refuse(s)
		c := begin(t, s, false)
		defer c.stop()
		if result := delivers(t, s, c, prompt); result != goesOn {
			return result
		}
		// The other three streams delivered these messages. The refused one opens now, or
		// ends Receive.
		if !c.within(prompt, func() bool { return s.Streams(subName) == 4 || c.over() }) {
			return "a stream is missing"
		}
		return delivers(t, s, c, prompt)
	}
}

// back kills a client that has 500 messages in flight. It returns whether all are available
// to others within limit, and come to a second client.
func back(limit time.Duration) func(*testing.T, *pubsubserver.Server, start) string {
	return func(t *testing.T, s *pubsubserver.Server, begin start) string {
		c := begin(t, s, true)
		publish(t, s, 500)
		if !within(patience, func() bool { return c.distinct() == 500 && len(s.ReceiptDelays(subName)) == 500 }) {
			c.stop()
			return "does not begin"
		}
		time.Sleep(2 * time.Second) // the situation: they have been in flight for some time
		c.dials.kill()
		killed := time.Now()
		c.stop()
		available := func() bool { return s.Stats(subName).Backlog == 500 }
		// The server looks for expired leases on the same machine: that may take some seconds.
		if !within(time.Until(killed.Add(limit+5*time.Second)), available) {
			return fmt.Sprintf("%d of 500 are back after %v", s.Stats(subName).Backlog, limit)
		}
		second := begin(t, s, false)
		defer second.stop()
		if !within(patience, func() bool { return second.distinct() == 500 }) {
			return fmt.Sprintf("a second client receives %d of 500", second.distinct())
		}
		return fmt.Sprintf("all back within %v", limit)
	}
}

var situations = []situation{
	{
		name: "the front takes `application/grpc` only", source: "googleapis.github.io#27, grpcbox#60, alpakka#2237",
		official: received, ours: received,
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			publish(t, s, 1000)
			if !within(patience, func() bool { return c.distinct() == 1000 && s.Stats(subName).Acked == 1000 }) {
				return fmt.Sprintf("receives %d of 1000", c.distinct())
			}
			return received
		},
	},
	{
		name: "what the first request of a stream says", source: "official client, pullstream.go",
		official: "client id, protocol 1, routing, lease, bounds", ours: "client id, protocol 1, routing, lease, bounds",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			if !within(patience, func() bool { return len(s.Openings(subName)) >= 4 }) {
				return "does not begin"
			}
			var says []string
			all := s.Openings(subName)[:4]
			for _, x := range []struct {
				what string
				has  func(pubsubserver.Opening) bool
			}{
				{"client id", func(o pubsubserver.Opening) bool {
					return o.Request.GetClientId() != "" && o.Request.GetClientId() == all[0].Request.GetClientId()
				}},
				{"protocol 1", func(o pubsubserver.Opening) bool { return o.Request.GetProtocolVersion() == 1 }},
				{"routing", func(o pubsubserver.Opening) bool {
					return slices.Equal(o.Metadata.Get("x-goog-request-params"), []string{"subscription=projects%2Fp%2Fsubscriptions%2Frelay"})
				}},
				{"lease", func(o pubsubserver.Opening) bool { return o.Request.GetStreamAckDeadlineSeconds() >= 10 }},
				{"bounds", func(o pubsubserver.Opening) bool {
					return o.Request.GetMaxOutstandingMessages() > 0 && o.Request.GetMaxOutstandingBytes() > 0
				}},
			} {
				if !slices.ContainsFunc(all, func(o pubsubserver.Opening) bool { return !x.has(o) }) {
					says = append(says, x.what)
				}
			}
			return strings.Join(says, ", ")
		},
	},
	{
		name: "streams without traffic for 70 s", source: "official client, iterator.go; google-cloud-dotnet#1505", slow: true,
		official: "pings; no stream is ended", ours: "pings; no stream is ended",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			if !within(patience, func() bool { return s.Streams(subName) == 4 }) {
				return "does not begin"
			}
			time.Sleep(70 * time.Second) // the situation
			if n := len(s.Openings(subName)); n != 4 {
				return fmt.Sprintf("%d streams were opened", n)
			}
			if s.Pings(subName) == 0 {
				return "no pings"
			}
			return "pings; no stream is ended"
		},
	},
	{
		// The service does not hear the official client's half close of such a stream. The
		// client's second ping, after 60 s, fails on it, and then a new stream is opened.
		name: "all streams go silent on healthy connections", source: "java-pubsub#490, nodejs-pubsub#1779, google-cloud-dotnet#11793", slow: true,
		official: "goes on after 60 s or more", ours: "goes on within 60 s",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			publish(t, s, 20)
			if !within(patience, func() bool { return c.distinct() == 20 && s.Streams(subName) == 4 }) {
				return "does not begin"
			}
			s.SilenceStreams(subName)
			return afterSilence(t, s, c)
		},
	},
	{
		name: "streams that are silent from their start", source: "as above", slow: true,
		official: "goes on after 60 s or more", ours: "goes on within 60 s",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			s.SilenceOpenings(4)
			c := begin(t, s, false)
			defer c.stop()
			return afterSilence(t, s, c)
		},
	},
	{
		name: "first lease of ten minutes, quiet traffic", source: "google-cloud-rust#4519, google-cloud-go#11642",
		official: "receipts within 200 ms", ours: "receipts within 200 ms", timed: true,
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			defer c.stop()
			for range 20 {
				publish(t, s, 10)
				time.Sleep(50 * time.Millisecond) // the situation
			}
			within(patience, func() bool { return len(s.ReceiptDelays(subName)) == 200 })
			// The machine may be busy: nine of ten show the client's own delay.
			return receipts(s, 200, 0.9, 200*time.Millisecond)
		},
	},
	{
		name: "first lease of ten minutes, 20,000 at once", source: "as above",
		official: "receipts within 500 ms", ours: "receipts within 500 ms", timed: true,
		note: "99 % of them. The test allows 5 s, because all situations share the machine.",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			defer c.stop()
			publish(t, s, outstanding)
			within(patience, func() bool { return len(s.ReceiptDelays(subName)) >= outstanding })
			if got := receipts(s, outstanding, 0.99, 5*time.Second); got != "receipts within 5s" {
				return got
			}
			return "receipts within 500 ms"
		},
	},
	{
		name: "killed with 500 messages in flight", source: "as above", slow: true,
		official: "all back within 30s", ours: "all back within 30s",
		play: back(30 * time.Second),
	},
	{
		name: "killed with 500 in flight, exactly-once delivery", source: "official client: 60 s at least", slow: true,
		official: "all back within 1m0s", ours: "all back within 1m0s",
		options: []pubsubserver.SubscriptionOption{pubsubserver.WithExactlyOnce()},
		play:    back(time.Minute),
	},
	{
		name: "one stream refused once: `Unauthenticated`", source: "google-cloud-go#6920, #6315, #11775",
		official: ends, ours: goesOn, play: refusedOnce(codes.Unauthenticated),
	},
	{
		name: "one stream refused once: `PermissionDenied`", source: "python-pubsub#18, java-pubsub#330",
		official: ends, ours: goesOn, play: refusedOnce(codes.PermissionDenied),
	},
	{
		name: "one stream refused once: `NotFound`", source: "java-pubsub#81",
		official: ends, ours: goesOn, play: refusedOnce(codes.NotFound),
	},
	{
		name: "one stream refused once: `FailedPrecondition`", source: "a key that is disabled for a while",
		official: ends, ours: goesOn, play: refusedOnce(codes.FailedPrecondition),
	},
	{
		name: "one stream refused once: `ResourceExhausted`", source: "official client, service.go: not retried",
		official: ends, ours: goesOn, play: refusedOnce(codes.ResourceExhausted),
	},
	{
		name: "one stream refused once: `Unavailable`", source: "documentation: streams end by design",
		official: goesOn, ours: goesOn, play: refusedOnce(codes.Unavailable),
	},
	{
		name: "HTTP 404 to one request", source: "any proxy in between; grpc-go makes `Unimplemented` of it",
		official: ends, ours: goesOn,
		play: oneRefused(func(s *pubsubserver.Server) { s.Front().Refuse(1) }),
	},
	{
		name: "all streams are cut", source: "documentation: streams end by design",
		official: goesOn, ours: goesOn,
		play: afterwards(prompt, func(s *pubsubserver.Server) { s.BreakStreams(nil) }),
	},
	{
		name: "one of four connections goes dead", source: "documentation: one connection carries some 100 streams", slow: true,
		official: goesOn, ours: goesOn,
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			// Requests take the connections in turn. With nothing to acknowledge, each of
			// the streams has one of its own.
			if !within(patience, func() bool { return s.Streams(subName) == 4 }) {
				return "does not begin"
			}
			openings := s.Openings(subName)
			s.Front().Freeze(openings[len(openings)-1].Peer)
			// The server gives some to the dead connection, until their leases end.
			if !c.within(time.Minute, func() bool {
				publish(t, s, 1)
				return c.distinct() >= 200
			}) {
				return "receives nothing"
			}
			return goesOn
		},
	},
	{
		name: "2,500 acknowledgements, half of them expired, exactly-once", source: "official client, iterator.go: results per id",
		official: "a handful of requests", ours: "a handful of requests",
		options: []pubsubserver.SubscriptionOption{pubsubserver.WithExactlyOnce()},
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			defer c.stop()
			ids := publish(t, s, 2500)
			if !within(patience, func() bool { return c.distinct() == 2500 && len(s.ReceiptDelays(subName)) == 2500 }) {
				return "does not begin"
			}
			var requests atomic.Int32
			s.RefuseStreams(-1, status.Error(codes.Unavailable, "so that nothing is delivered again"))
			s.BreakStreams(nil)
			if !within(patience, func() bool { return s.Streams(subName) == 0 }) {
				return "keeps its streams"
			}
			s.ExpireLeases(subName, ids[:1250]...)
			s.SetFault(func(method string, _ any) error {
				if method == "Acknowledge" {
					requests.Add(1)
					return pubsubserver.AfterDelay(20 * time.Millisecond)
				}
				return nil
			})
			c.ackKept()
			if !c.within(prompt, func() bool { return s.Stats(subName).Acked == 1250 }) {
				return fmt.Sprintf("%d of 1,250 acknowledged", s.Stats(subName).Acked)
			}
			// A slow machine makes some more of them, since acknowledgements are sent at intervals.
			const handful = 40
			within(time.Second, func() bool { return requests.Load() > handful }) // does it go on?
			if n := requests.Load(); n > handful {
				return fmt.Sprintf("%d requests", n)
			}
			return "a handful of requests"
		},
	},
	{
		name: "acknowledgements refused as a whole for 3 s", source: "`FailedPrecondition` without results per id: a key is disabled",
		official: "acknowledgements are lost; all come again", ours: "all acknowledged, none comes again",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			defer c.stop()
			publish(t, s, 500)
			if !within(patience, func() bool { return c.distinct() == 500 && len(s.ReceiptDelays(subName)) == 500 }) {
				return "does not begin"
			}
			var refused sync.Map // ack ids
			s.SetFault(func(method string, req any) error {
				if method != "Acknowledge" {
					return nil
				}
				for _, id := range req.(*pubsubpb.AcknowledgeRequest).GetAckIds() {
					refused.Store(id, true)
				}
				return status.Error(codes.FailedPrecondition, "the key is disabled")
			})
			c.ackKept()
			if !within(patience, func() bool { return entries(&refused) == 500 }) {
				return "does not acknowledge"
			}
			time.Sleep(3 * time.Second) // the situation
			s.SetFault(nil)
			// A message whose acknowledgement is lost comes again when its lease ends, and is acknowledged then.
			if !c.within(2*prompt, func() bool { return s.Stats(subName).Acked == 500 }) {
				return fmt.Sprintf("%+v", s.Stats(subName))
			}
			switch n := s.Stats(subName).Redelivered; n {
			case 0:
				return "all acknowledged, none comes again"
			case 500:
				return "acknowledgements are lost; all come again"
			default:
				return fmt.Sprintf("%d come again", n)
			}
		},
	},
	{
		// The official client sends one request after the other for each stream.
		name: "an extension is answered after 25 s", source: "official client, iterator.go: one sender for a stream", slow: true,
		official: "leases of the stream are lost", ours: "no lease is lost",
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			defer c.stop()
			publish(t, s, 5000)
			if !within(patience, func() bool { return c.distinct() == 5000 && len(s.ReceiptDelays(subName)) == 5000 }) {
				return "does not begin"
			}
			var once sync.Once
			s.SetFault(func(method string, _ any) (err error) {
				if method == "ModifyAckDeadline" {
					once.Do(func() { err = pubsubserver.AnswerAfter(25 * time.Second) })
				}
				return err
			})
			time.Sleep(60 * time.Second) // the situation: all leases were extended or have ended
			if s.Stats(subName).Redelivered > 0 {
				return "leases of the stream are lost"
			}
			return "no lease is lost"
		},
	},
	{
		name: "stopped with 2,000 in flight", source: "documentation: a nack makes a message available at once",
		official: "available to others within 2 s", ours: "available to others within 2 s", timed: true,
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, true)
			publish(t, s, 2000)
			if !within(patience, func() bool { return c.distinct() == 2000 }) {
				c.stop()
				return "does not begin"
			}
			s.RefuseStreams(-1, status.Error(codes.Unavailable, "so that it does not get them itself"))
			s.BreakStreams(nil)
			c.nackKept()
			ok := within(2*time.Second, func() bool { return s.Stats(subName).Backlog == 2000 })
			c.stop()
			if !ok {
				return fmt.Sprintf("%d there after 2 s", s.Stats(subName).Backlog)
			}
			return "available to others within 2 s"
		},
	},
	{
		name: "a message of 9.9 MB", source: "documentation: messages of 10 MB",
		official: received, ours: received,
		play: func(t *testing.T, s *pubsubserver.Server, begin start) string {
			c := begin(t, s, false)
			defer c.stop()
			if _, err := s.Publish(topicName, &pubsubpb.PubsubMessage{Data: make([]byte, 9_900_000)}); err != nil {
				t.Fatal(err)
			}
			if !within(patience, func() bool { return s.Stats(subName).Acked == 1 }) {
				return "does not receive it"
			}
			return received
		},
	},
}

func entries(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// receipts returns within which time a share of n receipts was sent.
func receipts(s *pubsubserver.Server, n int, share float64, limit time.Duration) string {
	delays := slices.Sorted(slices.Values(s.ReceiptDelays(subName)))
	if len(delays) < n {
		return fmt.Sprintf("%d of %d receipts", len(delays), n)
	}
	at := delays[min(len(delays)-1, int(math.Ceil(share*float64(len(delays)))))]
	if at > limit+50*time.Millisecond { // the server's own time
		return fmt.Sprintf("receipts within %v", at.Round(time.Millisecond))
	}
	text := limit.String()
	if limit < time.Second {
		text = fmt.Sprintf("%d ms", limit.Milliseconds())
	}
	return "receipts within " + text
}
