package event

import "fmt"

const (
	// maxJSON is the largest event in JSON, in bytes. From 10,000,000 bytes on, the gateway
	// drops an event and yet reports it as recorded. Just below, it leaves the event out of
	// every answer.
	maxJSON = 9_900_000
	// maxWire is the size on the wire, in bytes, at which encoding stops. It is not a limit
	// of its own: a byte of JSON takes less than maxShrink bytes on the wire, so an event
	// that exceeds it is too large in JSON, too. It is below the 90 MiB that the gateway
	// accepts as one message.
	maxWire = maxShrink * maxJSON
	// maxShrink is how many bytes on the wire a byte of JSON takes at most. The worst case
	// is an element of a list in private metadata: a number such as 1 has two bytes in
	// JSON, with its comma, and eleven on the wire.
	maxShrink = 6
)

// Why the JSON is never longer than six times the wire bytes and a constant:
//   - a byte of a string becomes at most six, the escape of a control character or
//     of < > &; the two separators that need six have three bytes on the wire;
//   - an entry of metadata has 13 bytes beside its key, and at most 28 in JSON; one
//     of the feature flags 6 beside its strings, and 6;
//   - an entry of a Struct has at least 6 bytes beside its key and its value's
//     content, and 4 in JSON; an element of a list 2, and 1;
//   - the content of a Value has 9 bytes for a number of at most 24 characters, 2
//     for null, true, false and brackets, 2 beside a string's own for its quotes;
//   - all else does not repeat: the names of the fields with their punctuation, the
//     timestamp and two integers, together less than 1,000 bytes. The metadata of
//     the request needs a few hundred beside its two strings.
const (
	maxGrowth = 6
	maxFixed  = 4096
)

// jsonBound returns an upper bound of jsonSize at a small part of its cost.
func jsonBound(wire []byte, publisher Publisher) int {
	return maxGrowth*(len(wire)+len(publisher.ServiceID)+len(publisher.Environment)) + maxFixed
}

// tooLarge says how the event is too large for the gateway; "" if it is not.
func tooLarge(wire []byte, publisher Publisher) string {
	if jsonBound(wire, publisher) < maxJSON {
		return ""
	}
	if size := jsonSize(wire, publisher); size >= maxJSON {
		return fmt.Sprintf("the event is too large: expected less than %d bytes when the gateway renders it as JSON with its metadata, got %d", maxJSON, size)
	}
	return ""
}
