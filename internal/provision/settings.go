// Package provision knows the topics, subscriptions and settings that the worker needs,
// the reason for each, and how to create or repair it. `worker run` and `worker check`
// compare resources with the same tables by which `worker setup` creates them.
package provision

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Verdict is the state of a setting or a resource.
type Verdict string

const (
	// OK: as the worker needs it.
	OK Verdict = "ok"
	// Warning: it works, with a consequence that may not be intended.
	Warning Verdict = "warning"
	// Failure: it does not work, or loses events.
	Failure Verdict = "failure"
	// Skipped: it could not be checked.
	Skipped Verdict = "skipped"
)

// The settings of the resources that setup creates.
const (
	// AckDeadline is the lease of a message before its first extension.
	AckDeadline = time.Minute
	// Retention is how long an event waits for the worker: Pub/Sub's default.
	Retention = 7 * day
	// DeadLetterRetention is how long a dead-lettered message is kept: Pub/Sub's maximum.
	DeadLetterRetention = 31 * day
	// MaxDeliveryAttempts of the native dead-letter policy: Pub/Sub's maximum.
	MaxDeliveryAttempts = 100

	day = 24 * time.Hour
	// shortRetention does not outlast a weekend with an outage.
	shortRetention = 3 * day
	// emulatorRetention is the maximum that Google's emulator accepts.
	emulatorRetention = 7 * day
	// shortAckDeadline is too short to lease a thousand messages before it ends.
	shortAckDeadline = 30 * time.Second
	// defaultExpiration is Pub/Sub's own default.
	defaultExpiration = 31 * day
	// deletedTopic is Pub/Sub's name for a topic that was deleted.
	deletedTopic = "_deleted-topic_"
)

// The names of settings that other code looks up.
const (
	topicName     = "topic"
	deliveryName  = "delivery"
	retentionName = "retention"
)

// Needs are the resources that the worker uses, by full name.
type Needs struct {
	Subscription    string
	DeadLetterTopic string
	// Topic is where the events come from; only `publish` and `replay` use it.
	Topic string
	// TopicGiven says that the topic was set on purpose, not by default.
	TopicGiven bool
	// DeadLetterSubscription is the subscription that on-call reads.
	DeadLetterSubscription string
	// DeadLetterView is the second subscription of the dead-letter topic, by which the
	// commands read the queue without leasing its messages; empty: there is none.
	DeadLetterView string
	// ReceiptsTopic and ReceiptsSubscription are those of the verdicts of replayed
	// messages; empty: there are none.
	ReceiptsTopic, ReceiptsSubscription string
	// Emulator says that Pub/Sub is an emulator, which does not support every setting.
	Emulator bool
}

// Judgement is the verdict on one setting.
type Judgement struct {
	Verdict Verdict
	// Is is the present value, in words.
	Is string
	// Consequence is the effect of a bad value; empty when the value is good.
	Consequence string
}

// Setting is one setting of a subscription.
type Setting struct {
	Name string
	// Judge compares the present value with the worker's needs.
	Judge func(s *pubsubpb.Subscription, n Needs) Judgement
	// Path is the field for an update; empty when it is fixed once the
	// subscription exists.
	Path string
	// Set changes it to the value that the worker needs; nil when Pub/Sub's default is
	// that value.
	Set func(s *pubsubpb.Subscription, n Needs)
	// Do says what a person can do about a setting that cannot be changed.
	Do string
}

const anew = "settings of this kind are fixed: let it run empty, delete it, and create it anew (worker setup)"

// SubscriptionSettings are those of the worker's subscription.
func SubscriptionSettings() []Setting {
	return []Setting{
		{
			Name: topicName, Do: "set PUBSUB_TOPIC to the topic that services publish to",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				j := judgeTopic(s.GetTopic(), n.Topic, "what publish and dlq replay publish does not come to the worker")
				if j.Verdict == Failure && s.GetTopic() != deletedTopic && !n.TopicGiven {
					j.Verdict = Warning // only the default is wrong
				}
				return j
			},
		},
		detached("the worker receives no events"),
		pull("the worker cannot receive"),
		{
			Name: "ack deadline", Path: "ack_deadline_seconds",
			Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
				return Judgement{Verdict: OK, Is: span(ackDeadline(s)) + "; the worker asks for leases of its own and extends them"}
			},
			Set: setAckDeadline,
		},
		{
			Name: retentionName, Path: "message_retention_duration",
			Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
				kept := retention(s)
				switch {
				case kept < day:
					return Judgement{Failure, span(kept), "an outage of the gateway that lasts longer loses events"}
				case kept < shortRetention:
					return Judgement{Warning, span(kept), "an outage of the gateway that lasts longer, such as over a weekend, loses events"}
				}
				return Judgement{Verdict: OK, Is: span(kept)}
			},
			Set: func(s *pubsubpb.Subscription, _ Needs) { s.MessageRetentionDuration = durationpb.New(Retention) },
		},
		expiration(Warning, "a worker that is stopped for that long finds no subscription and no events"),
		retryPolicy("released events are hidden for that time, from the next worker and from a drain that ends meanwhile"),
		{
			Name: "dead-letter policy", Path: "dead_letter_policy",
			Judge: judgeDeadLetterPolicy,
			Set: func(s *pubsubpb.Subscription, n Needs) {
				s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: n.DeadLetterTopic, MaxDeliveryAttempts: MaxDeliveryAttempts}
			},
		},
		exactlyOnce("it costs throughput and latency without a benefit, because the gateway knows an event by its id"),
		ordering("a released event delays all others with its key, and throughput is bounded by key; the gateway needs no order"),
		filter("events that do not match are acknowledged by Pub/Sub itself and lost"),
	}
}

// DeadLetterSettings are those of the dead-letter subscription.
func DeadLetterSettings() []Setting {
	return []Setting{
		{
			Name: topicName, Do: "set DLQ_SUBSCRIPTION to a subscription of DLQ_TOPIC",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				return judgeTopic(s.GetTopic(), n.DeadLetterTopic, "on-call does not see what the worker rejects")
			},
		},
		detached("dead-lettered messages are lost"),
		pull("dead-lettered messages go elsewhere, and the dlq commands find none"),
		{
			Name: "ack deadline", Path: "ack_deadline_seconds",
			Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
				if d := ackDeadline(s); d < shortAckDeadline {
					return Judgement{Warning, span(d), "on a slow connection leases end before the dlq commands can extend them, and messages are delivered twice"}
				}
				return Judgement{Verdict: OK, Is: span(ackDeadline(s))}
			},
			Set: setAckDeadline,
		},
		{
			Name: retentionName, Path: "message_retention_duration",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				kept := retention(s)
				switch {
				case n.Emulator && kept == emulatorRetention:
					return Judgement{Verdict: Skipped, Is: clippedRetention + "; a real one should have " + span(DeadLetterRetention)}
				case kept < Retention:
					return Judgement{Failure, span(kept), "dead-lettered messages are deleted after that, before the cause is fixed"}
				case kept < DeadLetterRetention:
					return Judgement{Warning, span(kept), "dead-lettered messages are deleted after that; Pub/Sub can keep them for " + span(DeadLetterRetention)}
				}
				return Judgement{Verdict: OK, Is: span(kept)}
			},
			Set: func(s *pubsubpb.Subscription, _ Needs) {
				s.MessageRetentionDuration = durationpb.New(DeadLetterRetention)
			},
		},
		expiration(Failure, "after that time without use Pub/Sub deletes the subscription and its messages, and later messages are lost"),
		retryPolicy("messages that the dlq commands give back are hidden for that time"),
		unwanted(Setting{Name: "dead-letter policy", Path: "dead_letter_policy"}, Warning, "none",
			"each read of the queue counts as an attempt, and then messages move where on-call does not see them", deadLetterPolicy),
		exactlyOnce("the dlq commands get slower without a benefit"),
		ordering("a message that is given back delays all others with its key"),
		filter("messages that do not match are lost"),
	}
}

// ViewSettings are those of the view of the dead-letter queue. It is a convenience: no
// setting of it loses a dead-lettered message.
func ViewSettings() []Setting {
	const useless = "the dlq commands lease what they read"
	return harmless([]Setting{
		{
			Name: topicName, Do: "set DLQ_VIEW_SUBSCRIPTION to a subscription of DLQ_TOPIC of its own",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				return judgeTopic(s.GetTopic(), n.DeadLetterTopic, useless)
			},
		},
		detached(useless),
		pull(useless),
		{
			Name: "ack deadline", Path: "ack_deadline_seconds",
			Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
				return Judgement{Verdict: OK, Is: span(ackDeadline(s))}
			},
			Set: func(s *pubsubpb.Subscription, _ Needs) { s.AckDeadlineSeconds = int32(AckDeadline / time.Second) },
		},
		{
			Name: retentionName, Path: "message_retention_duration",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				// A snapshot exists only while its oldest message is younger than seven days,
				// so that the view needs no older message.
				if kept := retention(s); kept < Retention {
					return Judgement{Warning, span(kept), "the view does not show older dead-lettered messages"}
				}
				return Judgement{Verdict: OK, Is: span(retention(s))}
			},
			Set: func(s *pubsubpb.Subscription, _ Needs) { s.MessageRetentionDuration = durationpb.New(Retention) },
		},
		expiration(Warning, "after that time without use Pub/Sub deletes the view, and "+useless),
		retryPolicy("the next command sees messages that were given back only after that time"),
		unwanted(Setting{Name: "dead-letter policy", Path: "dead_letter_policy"}, Warning, "none",
			"each look counts as an attempt, and then Pub/Sub publishes the messages once more", deadLetterPolicy),
		exactlyOnce("the dlq commands get slower without a benefit"),
		ordering("a message that is given back delays all others with its key"),
		filter("the view does not show messages that do not match"),
	})
}

// ReceiptSettings are those of the subscription of receipts.
func ReceiptSettings() []Setting {
	const unknown = "dlq status and trace do not learn what became of replayed events"
	return harmless([]Setting{
		{
			Name: topicName, Do: "set RECEIPTS_SUBSCRIPTION to a subscription of RECEIPTS_TOPIC",
			Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
				return judgeTopic(s.GetTopic(), n.ReceiptsTopic, unknown)
			},
		},
		detached(unknown),
		pull(unknown),
		{
			Name: retentionName, Path: "message_retention_duration",
			Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
				if kept := retention(s); kept < day {
					return Judgement{Warning, span(kept), "receipts that nobody has read by then are deleted, and " + unknown}
				}
				return Judgement{Verdict: OK, Is: span(retention(s))}
			},
			Set: func(s *pubsubpb.Subscription, _ Needs) { s.MessageRetentionDuration = durationpb.New(Retention) },
		},
		expiration(Warning, "after that time without use Pub/Sub deletes the subscription, and "+unknown),
		retryPolicy("receipts of other replays, which a command gives back, are hidden for that time"),
		filter(unknown),
	})
}

// harmless returns the settings of a subscription on which no event depends: what would
// be a failure is a warning.
func harmless(settings []Setting) []Setting {
	for i := range settings {
		judge := settings[i].Judge
		settings[i].Judge = func(s *pubsubpb.Subscription, n Needs) Judgement {
			j := judge(s, n)
			if j.Verdict == Failure {
				j.Verdict = Warning
			}
			return j
		}
	}
	return settings
}

// clippedRetention is the retention on an emulator where the worker needs more.
var clippedRetention = span(emulatorRetention) + ", the maximum of an emulator"

func judgeTopic(topic, want, consequence string) Judgement {
	switch topic {
	case want:
		return Judgement{Verdict: OK, Is: topic}
	case deletedTopic:
		return Judgement{Failure, "deleted", "no message arrives"}
	}
	return Judgement{Failure, topic + ", not " + want, consequence}
}

// TopicDeleted reports whether the topic of a subscription was deleted.
func TopicDeleted(s *pubsubpb.Subscription) bool { return s.GetTopic() == deletedTopic }

// unwanted returns a setting that must not be set. is returns its value, or "" if it is
// not set; none names that state.
func unwanted(s Setting, verdict Verdict, none, consequence string, is func(*pubsubpb.Subscription) string) Setting {
	s.Judge = func(sub *pubsubpb.Subscription, _ Needs) Judgement {
		if is := is(sub); is != "" {
			return Judgement{verdict, is, consequence}
		}
		return Judgement{Verdict: OK, Is: none}
	}
	return s
}

// on returns a value for unwanted: "on", or "" if a setting is off.
func on(set bool) string {
	if set {
		return "on"
	}
	return ""
}

func detached(consequence string) Setting {
	s := Setting{Name: "attachment", Do: "a detached subscription cannot be attached again: delete it, and create it anew (worker setup)"}
	return unwanted(s, Failure, "attached to its topic", consequence, func(sub *pubsubpb.Subscription) string {
		if sub.GetDetached() {
			return "detached from its topic"
		}
		return ""
	})
}

func pull(consequence string) Setting {
	return Setting{
		Name: deliveryName, Path: "push_config",
		Do: "export subscriptions cannot be pulled: create one that can (worker setup)",
		Judge: func(s *pubsubpb.Subscription, _ Needs) Judgement {
			var kind string
			switch {
			case s.GetPushConfig().GetPushEndpoint() != "":
				kind = "push"
			case s.GetBigqueryConfig() != nil:
				kind = "to BigQuery"
			case s.GetCloudStorageConfig() != nil:
				kind = "to Cloud Storage"
			default:
				return Judgement{Verdict: OK, Is: "pull"}
			}
			return Judgement{Failure, kind, consequence}
		},
		Set: func(s *pubsubpb.Subscription, _ Needs) { s.PushConfig = &pubsubpb.PushConfig{} },
	}
}

func expiration(verdict Verdict, consequence string) Setting {
	return Setting{
		Name: "expiration", Path: "expiration_policy",
		Judge: func(s *pubsubpb.Subscription, n Needs) Judgement {
			policy := s.GetExpirationPolicy()
			switch {
			case policy == nil && n.Emulator:
				return Judgement{Verdict: Skipped, Is: "an emulator does not report it; a real one expires after 31 idle days unless that is switched off"}
			case policy == nil:
				return Judgement{verdict, "after " + span(defaultExpiration) + " without activity", consequence}
			case policy.GetTtl() == nil:
				return Judgement{Verdict: OK, Is: "never"}
			}
			return Judgement{verdict, "after " + span(policy.GetTtl().AsDuration()) + " without activity", consequence}
		},
		Set: func(s *pubsubpb.Subscription, _ Needs) { s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{} },
	}
}

func retryPolicy(consequence string) Setting {
	s := Setting{Name: "retry policy", Path: "retry_policy"}
	return unwanted(s, Warning, "none: at once", consequence, func(sub *pubsubpb.Subscription) string {
		p := sub.GetRetryPolicy()
		if p == nil {
			return ""
		}
		low, high := 10*time.Second, 10*time.Minute // Pub/Sub's defaults
		if p.GetMinimumBackoff() != nil {
			low = p.GetMinimumBackoff().AsDuration()
		}
		if p.GetMaximumBackoff() != nil {
			high = p.GetMaximumBackoff().AsDuration()
		}
		return fmt.Sprintf("backoff of %s to %s", span(low), span(high))
	})
}

// deadLetterPolicy returns the policy in words, or "" if there is none.
func deadLetterPolicy(s *pubsubpb.Subscription) string {
	p := s.GetDeadLetterPolicy()
	if p == nil {
		return ""
	}
	return fmt.Sprintf("to %s after %d attempts", p.GetDeadLetterTopic(), p.GetMaxDeliveryAttempts())
}

func judgeDeadLetterPolicy(s *pubsubpb.Subscription, n Needs) Judgement {
	p, is := s.GetDeadLetterPolicy(), deadLetterPolicy(s)
	switch {
	case p == nil:
		return Judgement{Warning, "none", "an event that crashes every worker that takes it is delivered for ever"}
	case p.GetDeadLetterTopic() == deletedTopic:
		return Judgement{Failure, "to a topic that was deleted", "events that are out of attempts go nowhere"}
	case p.GetDeadLetterTopic() != n.DeadLetterTopic:
		return Judgement{Warning, is, "on-call does not see there what crashes the worker; DLQ_TOPIC is " + n.DeadLetterTopic}
	case p.GetMaxDeliveryAttempts() < MaxDeliveryAttempts:
		return Judgement{Warning, is, fmt.Sprintf("each release in an outage counts, so good events are dead-lettered; %d is Pub/Sub's maximum", MaxDeliveryAttempts)}
	}
	return Judgement{Verdict: OK, Is: is}
}

func exactlyOnce(consequence string) Setting {
	s := Setting{Name: "exactly-once delivery", Path: "enable_exactly_once_delivery"}
	return unwanted(s, Warning, "off", consequence, func(sub *pubsubpb.Subscription) string { return on(sub.GetEnableExactlyOnceDelivery()) })
}

func ordering(consequence string) Setting {
	s := Setting{Name: "ordering", Do: anew}
	return unwanted(s, Warning, "off", consequence, func(sub *pubsubpb.Subscription) string { return on(sub.GetEnableMessageOrdering()) })
}

func filter(consequence string) Setting {
	s := Setting{Name: "filter", Do: anew}
	return unwanted(s, Failure, "none", consequence, func(sub *pubsubpb.Subscription) string { return oneLine(sub.GetFilter()) })
}

func setAckDeadline(s *pubsubpb.Subscription, _ Needs) {
	s.AckDeadlineSeconds = int32(AckDeadline / time.Second)
}

func ackDeadline(s *pubsubpb.Subscription) time.Duration {
	// Pub/Sub takes 0 for 10 seconds.
	return time.Duration(cmp.Or(s.GetAckDeadlineSeconds(), 10)) * time.Second
}

func retention(s *pubsubpb.Subscription) time.Duration {
	if s.GetMessageRetentionDuration() == nil {
		return 7 * day // Pub/Sub's default
	}
	return s.GetMessageRetentionDuration().AsDuration()
}

// span formats a duration in the largest unit that fits.
func span(d time.Duration) string {
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"day", day}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		if d >= unit.of && d%unit.of == 0 {
			if n := d / unit.of; n != 1 {
				return fmt.Sprintf("%d %ss", n, unit.name)
			}
			return "1 " + unit.name
		}
	}
	return d.String()
}

// oneLine replaces line breaks in a text from elsewhere.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// WhatToDo is advice about a bad setting: the command that changes it, if one can.
func (s Setting) WhatToDo(sub *pubsubpb.Subscription, change string) string {
	if s.Changeable(sub) {
		return change
	}
	return s.Do
}

// Changeable reports whether the setting can be changed on the subscription.
func (s Setting) Changeable(sub *pubsubpb.Subscription) bool {
	if s.Name == deliveryName {
		return sub.GetBigqueryConfig() == nil && sub.GetCloudStorageConfig() == nil
	}
	return s.Path != ""
}
