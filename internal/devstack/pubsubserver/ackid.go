package pubsubserver

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"strings"
)

// An ack id names a delivery: the subscription, the message's slot in its table
// and the delivery's number, which is never used again. So finding the message
// needs no map, and an id that is out of date is recognized.
const (
	ackIDBinary = 4 + 4 + 8
	ackIDHex    = 2 * ackIDBinary
	// ackIDLength is about that of the service, so that requests reach the
	// service's limits with as many ids as there.
	ackIDLength = 192
)

var ackIDPadding = strings.Repeat("x", ackIDLength-ackIDHex)

// subscriptionTag tells the ack ids of different subscriptions apart.
func subscriptionTag(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum32()
}

func appendAckID(b []byte, tag, slot uint32, delivery uint64) []byte {
	var raw [ackIDBinary]byte
	binary.BigEndian.PutUint32(raw[0:], tag)
	binary.BigEndian.PutUint32(raw[4:], slot)
	binary.BigEndian.PutUint64(raw[8:], delivery)
	b = hex.AppendEncode(b, raw[:])
	return append(b, ackIDPadding...)
}

func parseAckID(id string) (tag, slot uint32, delivery uint64, ok bool) {
	if len(id) != ackIDLength {
		return 0, 0, 0, false
	}
	var text [ackIDHex]byte
	var raw [ackIDBinary]byte
	copy(text[:], id)
	if _, err := hex.Decode(raw[:], text[:]); err != nil {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint32(raw[0:]), binary.BigEndian.Uint32(raw[4:]), binary.BigEndian.Uint64(raw[8:]), true
}
