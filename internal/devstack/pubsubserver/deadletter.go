package pubsubserver

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// deadLetter forwards messages without attempts left to the dead-letter topic. Those
// that cannot be forwarded stay in the subscription.
func (sub *subscription) deadLetter(deads []dead) {
	if len(deads) == 0 {
		return
	}
	target := sub.proto.Load().GetDeadLetterPolicy().GetDeadLetterTopic()
	subscribers, err := sub.registry.subscribers(target)
	if err != nil {
		sub.queue.putBack(deads)
		return
	}
	sequence := &sub.registry.sequence
	sequence.mu.RLock()
	defer sequence.mu.RUnlock()
	first, now := sequence.reserve(len(deads)), timestamppb.New(time.Now())
	forwarded := make([]message, len(deads))
	for i, d := range deads {
		forwarded[i] = d.forward(sub.name, first+uint64(i), now)
	}
	for _, s := range subscribers {
		s.queue.put(forwarded)
	}
}

// dead is a message that has used up its attempts.
type dead struct {
	message  message
	attempts int32
}

// forward returns the message as the dead-letter topic gets it from the subscription of
// this name.
func (d dead) forward(subscription string, number uint64, now *timestamppb.Timestamp) message {
	_, project, _, id := splitName(subscription)
	m := d.message.decode()
	if m.Attributes == nil {
		m.Attributes = map[string]string{}
	}
	m.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = strconv.Itoa(int(d.attempts))
	m.Attributes["CloudPubSubDeadLetterSourceSubscription"] = id
	m.Attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] = project
	m.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"] =
		m.GetPublishTime().AsTime().Format("2006-01-02T15:04:05.000+00:00")
	m.MessageId, m.PublishTime = strconv.FormatUint(number, 10), now
	b, err := proto.Marshal(m)
	if err != nil { // it was marshalled before
		panic("encode a dead-lettered message: " + err.Error())
	}
	return message{encoded: b, number: number}
}
