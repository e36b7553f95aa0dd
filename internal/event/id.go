package event

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
)

const idLen = len("00000000-0000-0000-0000-000000000000")

// parseID reads a UUID of any version in its canonical form, in upper or lower case.
func parseID(b []byte) (id [16]byte, ok bool) {
	if len(b) != idLen { // ParseBytes accepts other forms, too
		return id, false
	}
	id, err := uuid.ParseBytes(b)
	return id, err == nil
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
