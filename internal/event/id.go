package event

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

const idLen = len("00000000-0000-0000-0000-000000000000")

// parseID reads a UUID of any version in its canonical form, in upper or lower case.
func parseID(b []byte) (id [16]byte, ok bool) {
	if len(b) != idLen || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return id, false
	}
	at, bad := 0, byte(0)
	for i := range id {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			at++
		}
		high, low := hexDigits[b[at]], hexDigits[b[at+1]]
		bad |= high | low
		id[i] = high<<4 | low&15
		at += 2
	}
	return id, bad <= 15
}

// deriveID returns the id of an event that has none: a UUIDv7 that depends only on the
// message, so that every delivery of the message gives the same id.
func deriveID(published time.Time, messageID string) (id [16]byte) {
	milli := uint64(published.UnixMilli())
	for i := range 6 {
		id[i] = byte(milli >> (40 - 8*i))
	}
	sum := sha256.Sum256([]byte(messageID))
	copy(id[6:], sum[:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// appendID appends the canonical form.
func appendID(dst []byte, id [16]byte) []byte {
	dst = hex.AppendEncode(dst, id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		dst = hex.AppendEncode(append(dst, '-'), part)
	}
	return dst
}
