package pubsubserver

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// publish hands messages to the topic's subscriptions. requestBytes is the size
// of what the request holds besides the messages.
func (s *Server) publish(name string, msgs []*pubsubpb.PubsubMessage, requestBytes int) ([]string, error) {
	subs, err := s.subscribers(name)
	if err != nil {
		return nil, err
	}
	for i, m := range msgs {
		if problem := checkMessage(m); problem != "" {
			return nil, status.Errorf(codes.InvalidArgument, "message %d: %s", i, problem)
		}
	}
	s.sequence.RLock()
	defer s.sequence.RUnlock()
	number := s.number.Add(uint64(len(msgs))) - uint64(len(msgs))
	now := timestamppb.New(time.Now())
	encoded := make([]message, len(msgs))
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		number++
		ids[i] = strconv.FormatUint(number, 10)
		b, err := proto.Marshal(&pubsubpb.PubsubMessage{
			Data: m.GetData(), Attributes: m.GetAttributes(), OrderingKey: m.GetOrderingKey(),
			MessageId: ids[i], PublishTime: now,
		})
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "message %d: %v", i, err)
		}
		encoded[i] = message{encoded: b, number: number}
	}
	if problem := checkSize(encoded, ids, proto.Size(now), requestBytes); problem != "" {
		return nil, status.Error(codes.InvalidArgument, problem)
	}
	for _, sub := range subs {
		sub.queue.put(encoded)
	}
	return ids, nil
}

func (s *Server) subscribers(topic string) ([]*subscription, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.topics[topic]
	if t == nil {
		return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", topic)
	}
	return t.subscriptions, nil
}

// checkSize says what is wrong with the size of the request, of which the
// messages' ids and times were no part, or returns "". requestBytes is 0 for
// messages published in-process, each of which must fit by itself.
func checkSize(msgs []message, ids []string, timeBytes, requestBytes int) string {
	total := requestBytes
	for i, m := range msgs {
		size := len(m.encoded) - protowire.SizeTag(3) - protowire.SizeBytes(len(ids[i])) -
			protowire.SizeTag(4) - protowire.SizeBytes(timeBytes)
		total += protowire.SizeTag(2) + protowire.SizeBytes(size)
		if total > MaxPublishBytes {
			return "Request payload size exceeds the limit: " + strconv.Itoa(MaxPublishBytes) + " bytes."
		}
		if requestBytes == 0 {
			total = 0
		}
	}
	return ""
}

// checkMessage says what the service would refuse about m, or returns "".
func checkMessage(m *pubsubpb.PubsubMessage) string {
	if len(m.GetData()) == 0 && len(m.GetAttributes()) == 0 {
		return "Some messages have neither data nor attributes."
	}
	if n := len(m.GetAttributes()); n > MaxAttributes {
		return "too many attributes: " + strconv.Itoa(n)
	}
	for key, value := range m.GetAttributes() {
		switch {
		case key == "":
			return "an attribute's key is empty"
		case len(key) > MaxAttributeKeyBytes:
			return "an attribute's key is too long: " + strconv.Itoa(len(key)) + " bytes"
		case len(value) > MaxAttributeValueBytes:
			return "the value of the attribute " + strconv.Quote(key) + " is too long: " + strconv.Itoa(len(value)) + " bytes"
		case strings.HasPrefix(key, "goog") && !strings.HasPrefix(key, "googclient_"):
			return "the attribute " + strconv.Quote(key) + " begins with \"goog\""
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return "an attribute is not UTF-8"
		}
	}
	return ""
}

// deadLetter forwards messages without attempts left to the dead-letter topic. Those
// that cannot be forwarded stay in the subscription.
func (s *Server) deadLetter(sub *subscription, deads []dead) {
	if len(deads) == 0 {
		return
	}
	target := sub.proto.Load().GetDeadLetterPolicy().GetDeadLetterTopic()
	subs, err := s.subscribers(target)
	if err != nil {
		sub.queue.putBack(deads)
		return
	}
	s.sequence.RLock()
	defer s.sequence.RUnlock()
	_, project, _, id := splitName(sub.name)
	now := timestamppb.New(time.Now())
	number := s.number.Add(uint64(len(deads))) - uint64(len(deads))
	letters := make([]message, len(deads))
	for i, d := range deads {
		number++
		m := d.decode()
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
		letters[i] = message{encoded: b, number: number}
	}
	for _, sub := range subs {
		sub.queue.put(letters)
	}
}

// splitName takes "projects/p/topics/t" apart.
func splitName(name string) (projects, project, kind, id string) {
	parts := strings.SplitN(name, "/", 4)
	if len(parts) != 4 {
		return "", "", "", ""
	}
	return parts[0], parts[1], parts[2], parts[3]
}
