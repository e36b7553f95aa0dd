package provision

import (
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A dependency of the client starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

func needs() Needs {
	return Needs{
		Subscription: "projects/p/subscriptions/relay", Topic: "projects/p/topics/events", TopicGiven: true,
		DeadLetterSubscription: "projects/p/subscriptions/oncall", DeadLetterTopic: "projects/p/topics/dead",
	}
}

// good returns the subscriptions as setup makes them.
func good() (relay, oncall *pubsubpb.Subscription) {
	n := needs()
	relay = &pubsubpb.Subscription{Name: n.Subscription, Topic: n.Topic}
	oncall = &pubsubpb.Subscription{Name: n.DeadLetterSubscription, Topic: n.DeadLetterTopic}
	for _, s := range SubscriptionSettings() {
		if s.Set != nil {
			s.Set(relay, n)
		}
	}
	for _, s := range DeadLetterSettings() {
		if s.Set != nil {
			s.Set(oncall, n)
		}
	}
	return relay, oncall
}

func change(f func(*pubsubpb.Subscription)) func(*pubsubpb.Subscription) { return f }

func retained(d time.Duration) func(*pubsubpb.Subscription) {
	return change(func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(d) })
}

func policy(topic string, attempts int32) func(*pubsubpb.Subscription) {
	return change(func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topic, MaxDeliveryAttempts: attempts}
	})
}

// TestSettingsAreJudged changes one thing at a time, and only the setting of that may
// complain.
func TestSettingsAreJudged(t *testing.T) {
	var (
		expires = change(func(s *pubsubpb.Subscription) {
			s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(2 * day)}
		})
		byDefault = change(func(s *pubsubpb.Subscription) { s.ExpirationPolicy = nil })
		retries   = change(func(s *pubsubpb.Subscription) { s.RetryPolicy = &pubsubpb.RetryPolicy{} })
		once      = change(func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
		ordered   = change(func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true })
		filtered  = change(func(s *pubsubpb.Subscription) { s.Filter = "attributes.a =\n \"b\"" })
		gone      = change(func(s *pubsubpb.Subscription) { s.Topic = "_deleted-topic_" })
		other     = change(func(s *pubsubpb.Subscription) { s.Topic = "projects/p/topics/other" })
		off       = change(func(s *pubsubpb.Subscription) { s.Detached = true })
		push      = change(func(s *pubsubpb.Subscription) {
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
		})
		table = change(func(s *pubsubpb.Subscription) {
			s.BigqueryConfig = &pubsubpb.BigQueryConfig{Table: "p.d.t"}
		})
		bucket = change(func(s *pubsubpb.Subscription) {
			s.CloudStorageConfig = &pubsubpb.CloudStorageConfig{Bucket: "b"}
		})
		hasty = change(func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 10 })
	)
	for _, c := range []struct {
		name    string
		dlq     bool
		change  func(*pubsubpb.Subscription)
		setting string
		want    Verdict
		is      string
		fixed   bool // setup cannot change it
	}{
		{"nothing", false, nil, "topic", OK, "projects/p/topics/events", true},
		{"deleted topic", false, gone, "topic", Failure, "deleted", true},
		{"other topic", false, other, "topic", Failure, "projects/p/topics/other, not projects/p/topics/events", true},
		{"detached", false, off, "attachment", Failure, "detached from its topic", true},
		{"push", false, push, "delivery", Failure, "push", false},
		{"BigQuery", false, table, "delivery", Failure, "to BigQuery", true},
		{"Cloud Storage", false, bucket, "delivery", Failure, "to Cloud Storage", true},
		{"short ack deadline", false, hasty, "ack deadline", OK, "10 seconds; the worker asks for leases of its own and extends them", false},
		{"retention of 1 h", false, retained(time.Hour), "retention", Failure, "1 hour", false},
		{"retention of 1 d", false, retained(day), "retention", Warning, "1 day", false},
		{"retention of 3 d", false, retained(3 * day), "retention", OK, "3 days", false},
		{"retention by default", false, func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = nil }, "retention", OK, "7 days", false},
		{"expiration by default", false, byDefault, "expiration", Warning, "after 31 days without activity", false},
		{"expiration", false, expires, "expiration", Warning, "after 2 days without activity", false},
		{"retry policy", false, retries, "retry policy", Warning, "backoff of 10 seconds to 10 minutes", false},
		{"no dead-letter policy", false, func(s *pubsubpb.Subscription) { s.DeadLetterPolicy = nil }, "dead-letter policy", Warning, "none", false},
		{"few attempts", false, policy("projects/p/topics/dead", 5), "dead-letter policy", Warning, "to projects/p/topics/dead after 5 attempts", false},
		{"another dead-letter topic", false, policy("projects/p/topics/other", 100), "dead-letter policy", Warning, "to projects/p/topics/other after 100 attempts", false},
		{"deleted dead-letter topic", false, policy("_deleted-topic_", 100), "dead-letter policy", Failure, "to a topic that was deleted", false},
		{"exactly once", false, once, "exactly-once delivery", Warning, "on", false},
		{"ordering", false, ordered, "ordering", Warning, "on", true},
		{"filter", false, filtered, "filter", Failure, `attributes.a = "b"`, true},

		{"nothing", true, nil, "topic", OK, "projects/p/topics/dead", true},
		{"deleted topic", true, gone, "topic", Failure, "deleted", true},
		{"other topic", true, other, "topic", Failure, "projects/p/topics/other, not projects/p/topics/dead", true},
		{"detached", true, off, "attachment", Failure, "detached from its topic", true},
		{"push", true, push, "delivery", Failure, "push", false},
		{"short ack deadline", true, hasty, "ack deadline", Warning, "10 seconds", false},
		{"ack deadline by default", true, func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 0 }, "ack deadline", Warning, "10 seconds", false},
		{"retention of 6 d", true, retained(6 * day), "retention", Failure, "6 days", false},
		{"retention by default", true, retained(7 * day), "retention", Warning, "7 days", false},
		{"expiration by default", true, byDefault, "expiration", Failure, "after 31 days without activity", false},
		{"retry policy", true, retries, "retry policy", Warning, "backoff of 10 seconds to 10 minutes", false},
		{"dead-letter policy", true, policy("projects/p/topics/more", 5), "dead-letter policy", Warning, "to projects/p/topics/more after 5 attempts", false},
		{"exactly once", true, once, "exactly-once delivery", Warning, "on", false},
		{"ordering", true, ordered, "ordering", Warning, "on", true},
		{"filter", true, filtered, "filter", Failure, `attributes.a = "b"`, true},
	} {
		sub, dlq := good()
		settings := SubscriptionSettings()
		name := c.name
		if c.dlq {
			sub, settings, name = dlq, DeadLetterSettings(), c.name+" of the dead-letter subscription"
		}
		if c.change != nil {
			c.change(sub)
		}
		t.Run(name, func(t *testing.T) {
			found := false
			for _, s := range settings {
				j := s.Judge(sub, needs())
				if s.Name != c.setting {
					if j.Verdict != OK {
						t.Errorf("%s is %+v", s.Name, j)
					}
					continue
				}
				found = true
				if j.Verdict != c.want || j.Is != c.is || (j.Consequence == "") != (c.want == OK) {
					t.Errorf("got %+v, want %s: %s", j, c.want, c.is)
				}
				if s.Changeable(sub) == c.fixed {
					t.Errorf("changeable: %v", s.Changeable(sub))
				}
				if s.WhatToDo(sub, "change it") == "" || (s.WhatToDo(sub, "change it") == "change it") == c.fixed {
					t.Errorf("what to do: %q", s.WhatToDo(sub, "change it"))
				}
				if c.fixed || c.want == OK {
					continue
				}
				s.repair(sub, needs())
				if j := s.Judge(sub, needs()); j.Verdict != OK {
					t.Errorf("mended, it is %+v", j)
				}
			}
			if !found {
				t.Errorf("there is no setting %q", c.setting)
			}
		})
	}
}

func TestJudgeByDefaults(t *testing.T) {
	n := needs()
	n.TopicGiven = false
	relay, oncall := good()
	relay.Topic = "projects/p/topics/other"
	if j := SubscriptionSettings()[0].Judge(relay, n); j.Verdict != Warning {
		t.Errorf("the default topic is another: %+v", j)
	}
	relay.Topic = "_deleted-topic_"
	if j := SubscriptionSettings()[0].Judge(relay, n); j.Verdict != Failure {
		t.Errorf("the topic was deleted: %+v", j)
	}

	// An emulator knows less.
	n.Emulator = true
	relay, oncall = proto.CloneOf(relay), proto.CloneOf(oncall)
	relay.ExpirationPolicy, oncall.ExpirationPolicy, oncall.MessageRetentionDuration = nil, nil, durationpb.New(7*day)
	skips := 0
	for _, s := range DeadLetterSettings() {
		switch j := s.Judge(oncall, n); j.Verdict {
		case OK:
		case Skipped:
			skips++
		default:
			t.Errorf("%s is %+v", s.Name, j)
		}
	}
	for _, s := range SubscriptionSettings()[1:] {
		switch j := s.Judge(relay, n); j.Verdict {
		case OK:
		case Skipped:
			skips++
		default:
			t.Errorf("%s is %+v", s.Name, j)
		}
	}
	if skips != 3 {
		t.Errorf("%d settings were skipped, want 3", skips)
	}
}

func TestSpansAreReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		31 * day: "31 days", day: "1 day", 36 * time.Hour: "36 hours", time.Minute: "1 minute", 90 * time.Second: "90 seconds",
		1500 * time.Millisecond: "1.5s", 0: "0s",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// TestOptionalSettings: no setting of the view or of the receipts is a failure, as no event
// depends on it; each bad one is a warning that says what it costs.
func TestOptionalSettings(t *testing.T) {
	n := allNeeds()
	for _, c := range []struct {
		name     string
		sub      *pubsubpb.Subscription
		settings []Setting
	}{
		{"view", &pubsubpb.Subscription{Name: n.DeadLetterView, Topic: n.DeadLetterTopic}, ViewSettings()},
		{"receipts", &pubsubpb.Subscription{Name: n.ReceiptsSubscription, Topic: n.ReceiptsTopic}, ReceiptSettings()},
	} {
		for _, s := range c.settings {
			if s.Set != nil {
				s.Set(c.sub, n)
			}
		}
		for _, s := range c.settings {
			if j := s.Judge(c.sub, n); j.Verdict != OK {
				t.Errorf("%s %s as setup makes it: %+v", c.name, s.Name, j)
			}
		}
		for setting, change := range map[string]func(*pubsubpb.Subscription){
			"topic":      func(s *pubsubpb.Subscription) { s.Topic = "projects/p/topics/other" },
			"attachment": func(s *pubsubpb.Subscription) { s.Detached = true },
			"delivery": func(s *pubsubpb.Subscription) {
				s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
			},
			"retention":          retained(time.Hour),
			"expiration":         func(s *pubsubpb.Subscription) { s.ExpirationPolicy = nil },
			"retry policy":       func(s *pubsubpb.Subscription) { s.RetryPolicy = &pubsubpb.RetryPolicy{} },
			"filter":             func(s *pubsubpb.Subscription) { s.Filter = "attributes.a" },
			"dead-letter policy": policy("projects/p/topics/more", 5),
		} {
			bad := proto.CloneOf(c.sub)
			change(bad)
			for _, s := range c.settings {
				want := OK
				if s.Name == setting {
					want = Warning
				}
				if j := s.Judge(bad, n); j.Verdict != want || (want == Warning) != (j.Consequence != "") {
					t.Errorf("%s with a bad %s: %s is %+v, want %s", c.name, setting, s.Name, j, want)
				}
			}
		}
	}
}

// allNeeds are the needs with everything that is optional.
func allNeeds() Needs {
	n := needs()
	n.DeadLetterView, n.ReceiptsTopic, n.ReceiptsSubscription = "projects/p/subscriptions/view", "projects/p/topics/receipts", "projects/p/subscriptions/receipts"
	return n
}
