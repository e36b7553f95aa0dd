package pubsubserver

import (
	"sync/atomic"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// subscription is one of a registry's.
type subscription struct {
	name     string
	registry *registry // has the dead-letter topic
	queue    *queue
	born     uint64                                // the last message's number when it was created
	proto    atomic.Pointer[pubsubpb.Subscription] // replaced, never changed
	pings    atomic.Int64
}

func (sub *subscription) exactlyOnce() bool { return sub.proto.Load().GetEnableExactlyOnceDelivery() }

// modify gives leases a new length and returns the ids of those that an exactly-once
// subscription does not have.
func (sub *subscription) modify(ids []string, seconds func(i int) int) (invalid []string, err error) {
	var deads []dead
	if sub.exactlyOnce() {
		deads, invalid = sub.queue.modifyExactly(ids, seconds)
	} else {
		var ok bool
		if deads, ok = sub.queue.modify(ids, seconds); !ok {
			return nil, errAckID
		}
	}
	sub.deadLetter(deads)
	return invalid, nil
}

// appendReceived encodes the field received_messages, which has the same number
// in the responses to a Pull and to a StreamingPull. Messages are encoded once,
// when they are published, so what takes most of the time of a delivery is a
// copy; responses carry it as if it were a field that they do not know.
func (sub *subscription) appendReceived(b []byte, out []delivered) []byte {
	countAttempts := sub.proto.Load().GetDeadLetterPolicy() != nil
	const ackIDField = 1 + 2 + ackIDLength // the length takes two bytes
	for _, d := range out {
		size := ackIDField + 1 + protowire.SizeBytes(len(d.encoded))
		if countAttempts {
			size += 1 + protowire.SizeVarint(uint64(d.attempt))
		}
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendVarint(b, ackIDLength)
		b = appendAckID(b, sub.queue.slots.tag, d.slot, d.delivery)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, d.encoded)
		if countAttempts {
			b = protowire.AppendTag(b, 3, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(d.attempt))
		}
	}
	return b
}
