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
func (r *registry) publish(name string, msgs []*pubsubpb.PubsubMessage, requestBytes int) ([]string, error) {
	subs, err := r.subscribers(name)
	if err != nil {
		return nil, err
	}
	for i, m := range msgs {
		if problem := checkMessage(m); problem != "" {
			return nil, status.Errorf(codes.InvalidArgument, "message %d: %s", i, problem)
		}
	}
	r.sequence.mu.RLock()
	defer r.sequence.mu.RUnlock()
	first := r.sequence.reserve(len(msgs))
	now := timestamppb.New(time.Now())
	encoded := make([]message, len(msgs))
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		number := first + uint64(i)
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
